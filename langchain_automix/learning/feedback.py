"""Which answer is meant where a user says how good one was."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from langchain_core.messages import AIMessage

from langchain_automix.errors import AutoMixError, UnknownQueryError
from langchain_automix.learning.handle import StoreHandle
from langchain_automix.learning.records import StoredQuery
from langchain_automix.learning.store.writer import StoreWriter


class AnsweredQuery(NamedTuple):
    """A query, and the answer that was given."""

    id: str
    kept: int | None
    """Index of the model whose answer was given; None: there was no answer."""

    models: int
    """Number of models, as far as known."""

    epoch: str | None = None


def find_answered(
    target: AIMessage | UUID | str, store: StoreHandle, writer: StoreWriter
) -> AnsweredQuery:
    """Return the query of a message, of a run, or of an id.

    Args:
        target: The message, the id of its run, or the id of the query in its record.
        store: Where queries are looked up.
        writer: What may yet have the query.

    Raises:
        UnknownQueryError: There is no such query.
        AutoMixError: The message is of none.
        StoreUnavailableError: The query must be looked up, and the store is away.
    """
    if isinstance(target, AIMessage):
        record = target.response_metadata.get("automix") or {}
        if "learning" not in record:
            raise AutoMixError("The message is of no query that a mix with learning answered.")
        kept = None if record["action"] == "abstain" else record["model_index"]
        return AnsweredQuery(record["learning"]["id"], kept, len(record["alone"]))
    found = _look_up(str(target), store, writer)
    if found is None:
        raise UnknownQueryError(f"The learning store {store.name} has no query {target}.")
    query = found.query
    models = max([answer.model for answer in query.answers], default=0) + 1
    return AnsweredQuery(query.id, query.kept, models, query.epoch)


def _look_up(name: str, store: StoreHandle, writer: StoreWriter) -> StoredQuery | None:
    opened = store.get()
    found = opened.find(run_id=name) or opened.find(id=name)
    if found is None and writer.waiting and writer.flush():
        found = opened.find(run_id=name) or opened.find(id=name)
    return found
