"""`POST /v1/feedback`: how good an answer was, for a mix that learns."""

from __future__ import annotations

import asyncio
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from langchain_automix.errors import InvalidInputError, StoreUnavailableError, UnknownQueryError
from langchain_automix.learning.records import AGREEMENT
from langchain_automix.serve.errors import ApiError
from langchain_automix.serve.keys import ApiKey, is_asked_by
from langchain_automix.serve.mixes import Mixes
from langchain_automix.serve.own_threads import OwnThreads
from langchain_automix.serve.query import ID_PREFIX

_STORE_SECONDS = 20.0
"""How long a client waits for a learning store."""

_ID = rf"^{ID_PREFIX}[0-9a-f]{{32}}$"


class Feedback(BaseModel):
    """How good an answer was."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    id: str = Field(pattern=_ID)
    """Id of the completion."""

    score: float = Field(ge=0, le=1, allow_inf_nan=False)
    """Its quality: 1 is right, 0 is wrong."""

    source: str = Field(default="feedback", min_length=1, max_length=100)
    """Who says so. What one source says again takes the place of before."""


class FeedbackTaken(BaseModel):
    """That the score was taken."""

    id: str
    object: Literal["feedback"] = "feedback"
    score: float


async def take_feedback(
    mixes: Mixes, given: Feedback, key: ApiKey | None, threads: OwnThreads
) -> FeedbackTaken:
    """Hand a score on to what learns from the query, whichever mix that asked.

    Args:
        mixes: The mixes; some may learn.
        given: The score.
        key: The client's key, by which the query must have been asked; None: none are set.
        threads: Wait for the learning stores.

    Raises:
        ApiError: No mix learns (409), or none knows of such a query of this key (404).
        StoreUnavailableError: A store is away, or does not answer in time.
    """
    # Once each, where mixes share one.
    learners = {id(learner): learner for learner in mixes.learners.values()}
    if not learners:
        raise ApiError(
            409, "No mix learns here, and so there is nothing to score.", code="not_learning"
        )
    if given.source == AGREEMENT:
        raise ApiError(400, f"Scores from {AGREEMENT!r} are the mix's own.", param="source")
    run = UUID(given.id.removeprefix(ID_PREFIX))
    if not is_asked_by(key, run):
        raise _unknown()
    for learner in learners.values():
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await threads.run(learner.feedback, run, given.score, source=given.source)
        except TimeoutError as error:
            raise StoreUnavailableError("The learning store does not answer.") from error
        except UnknownQueryError:
            continue
        except InvalidInputError as error:  # the mix gave no answer
            raise ApiError(409, str(error), code="not_answered", param="id") from error
        return FeedbackTaken(id=given.id, score=given.score)
    raise _unknown()


def _unknown() -> ApiError:
    text = "No mix that learns has answered a query of this id for this client."
    return ApiError(404, text, code="not_found", param="id")
