"""Ask one model for an answer, and see what needs no other model to be seen of it."""

from __future__ import annotations

import time
from typing import Any

from langchain_automix.errors import CutShortError, DeadlineError
from langchain_automix.flow.steps import BrokenOff, Call, Steps
from langchain_automix.flow.stream_guard import StreamGuard
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.limits.circuit_breaker import with_breaker
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import is_cut_short, is_fault, missing_answer_reason
from langchain_automix.models.tools import tool_call_problem
from langchain_automix.models.usage import to_model_call, with_model_name
from langchain_automix.types import Decision, Verification, Visit

# LangGraph's message stream leaves out runs with this tag: a draft may yet be rejected.
NOT_FOR_USERS = "nostream"
# They make or shape a stream; a draft is asked for in one piece.
_STREAM_ONLY = frozenset({"stream", "stream_options", "stream_usage"})


def request_answer(mix: MixConfig, way: QueryState, decision: Decision) -> Steps[None]:
    """Ask the model that a decision names; a call that fails is an answer that cannot be used.

    Its retries and fallbacks are the model's own: a call that failed is not made again.
    """
    index = decision.model_index
    hedged = way.hedged.pop(index, None)
    call = answer_call(mix, way, decision)
    reply: ModelAnswer | None = None
    problem, shown = None, False
    for _ in range(1 + mix.retries_if_unusable):
        started = time.perf_counter()
        try:
            reply = yield from _ask_model(mix, way, call, index, hedged)
        except Exception as error:
            if hedged is None:
                _note_failure(mix, way, call, index, error)
                if isinstance(error, DeadlineError):
                    mix.pace.learn("answer", index, time.perf_counter() - started, at_least=True)
            told = call.showing is not None and call.showing.told
            if mix.forced is not None or told or not is_fault(error):
                raise
            way.errors[index] = error
            reply, problem = None, f"the answering call failed ({type(error).__name__})"
            break
        finally:
            way.ledger.took(str(call.run_name), time.perf_counter() - started)
        if hedged is None:
            mix.pace.learn("answer", index, time.perf_counter() - started)
            way.ledger.asked(
                index, with_model_name(to_model_call([reply.message]), mix.models[index])
            )
        problem = _problem(mix, way, call, index, reply)
        shown = call.streams and hedged is None
        hedged = None
        if problem is None:
            break
    if reply is not None:
        way.replies[index] = reply
        way.shown = index if shown and problem is None else way.shown
    unusable = Verification(problem=problem, usable=False) if problem else None
    way.ledger.visits[index] = Visit(model_index=index, verification=unusable)


def answer_call(
    mix: MixConfig, way: QueryState, decision: Decision, *, hands_back: bool = False
) -> Call:
    """Return the call by which the model that a decision names is asked."""
    kwargs = way.kwargs
    index = decision.model_index
    streams = _may_stream(mix, decision)
    return Call(
        (mix.answering if streams else mix.drafters)[index],
        way.input,
        run_name="escalate" if way.ledger.visits else "draft",
        tags=[f"automix:{mix.names[index]}", *([] if streams else [NOT_FOR_USERS])],
        kwargs=kwargs if streams else {k: kwargs[k] for k in kwargs.keys() - _STREAM_ONLY},
        audience="everyone" if streams else "tracers",
        showing=StreamGuard() if streams else None,
        clock=way.clock,
        hands_back=hands_back,
    )


def _ask_model(
    mix: MixConfig, way: QueryState, call: Call, index: int, hedged: ModelAnswer | Exception | None
) -> Steps[ModelAnswer]:
    if hedged is not None:  # which the breaker knows of already
        return _hedged_answer(hedged)
    circuit = mix.circuits[index] if mix.breaker is not None else None
    flow = _read_reply(mix, way, call, index)
    return with_breaker(mix.breaker, circuit, mix.names[index], flow, hurried=is_hurried(way))


def is_hurried(way: QueryState) -> bool:
    """Whether so little of a query's time is left that a model which is well may need more."""
    return way.clock is not None and way.clock.left < way.clock.limit / 2


def _hedged_answer(hedged: ModelAnswer | Exception) -> Steps[ModelAnswer]:
    """Return what a model gave before it was needed."""
    yield from ()
    if isinstance(hedged, Exception):
        raise hedged
    return hedged


def _read_reply(mix: MixConfig, way: QueryState, call: Call, index: int) -> Steps[ModelAnswer]:
    try:
        [output] = yield [call]
    except BrokenOff as broken:
        if broken.under_way:
            way.ledger.broken_off(index, mix.names[index], mix.identities[index])
        raise
    except Exception as error:  # noqa: BLE001  (raised again where it is one)
        return read_answer(mix, index, error)
    return read_answer(mix, index, output)


def read_answer(mix: MixConfig, index: int, output: Any) -> ModelAnswer:
    """Read what a model gave, or the error that its call came to, or that stands for an answer.

    Raises:
        Exception: The error, unless it is how a client takes an answer that does not fit.
        CutShortError: The answer's stream ended before it did.
        AutoMixError: It is no message.
    """
    if isinstance(output, Exception):
        if (unfit := mix.read_error(output)) is None:
            raise output
        return unfit
    reply = mix.read(output, index)
    if is_cut_short(reply.message):
        raise CutShortError(
            f"The stream of {mix.names[index]} ended before its answer did: the provider never "
            "said why it ended (no finish_reason). Ask again, or see what stands between."
        )
    return reply


def _note_failure(
    mix: MixConfig, way: QueryState, call: Call, index: int, error: Exception
) -> None:
    if is_fault(error):
        way.ledger.failed_to_answer(
            index, mix.names[index], str(call.run_name), error, mix.identities[index]
        )


def _may_stream(mix: MixConfig, decision: Decision) -> bool:
    """Whether the answer to come is kept whatever it is, and so may be shown as it comes."""
    if not mix.may_stream or decision.samples != 0:
        return False
    if mix.forced is not None:
        return True
    if not (mix.tools or mix.may_be_unusable or mix.always_escalate_tools):
        return True
    is_last = decision.model_index == len(mix.models) - 1
    return is_last and not mix.retries_if_unusable


def _problem(
    mix: MixConfig, way: QueryState, call: Call, index: int, reply: ModelAnswer
) -> str | None:
    """Say why an answer cannot be used, as far as that can be told without a model."""
    if mix.forced is not None:
        return None
    problem = (
        reply.problem or missing_answer_reason(reply.message) or _tool_problem(mix, index, reply)
    )
    if problem and call.showing is not None and call.showing.told:
        way.degraded = f"{problem[0].upper()}{problem[1:]}, after a part was shown."
        return None
    return problem


def _tool_problem(mix: MixConfig, index: int, reply: ModelAnswer) -> str | None:
    if (not_allowed := reserved_tool_problem(mix, index, reply)) is not None:
        return not_allowed
    if not mix.tools:
        return None
    return tool_call_problem(reply.message, mix.tools, must_call=mix.must_call)


def reserved_tool_problem(mix: MixConfig, index: int, reply: ModelAnswer) -> str | None:
    """Say why the first model's answer must never be given: by `always_escalate_tools`."""
    for made in reply.message.tool_calls if index == 0 else ():
        if made["name"] in mix.always_escalate_tools:
            return f"the answer calls {made['name']!r}, which only a larger model may call"
    return None
