"""Ask one model for an answer, and find the faults that need no other model to be seen."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage

from langchain_automix.errors import CutShortError, DeadlineError
from langchain_automix.flow.steps import Call, Steps, gather
from langchain_automix.flow.stream_guard import StreamGuard
from langchain_automix.flow.watched import CLOSED
from langchain_automix.mix.answer import ModelAnswer
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.early import note_given_up, watched
from langchain_automix.mix.limits.circuit_breaker import with_breaker
from langchain_automix.mix.limits.repeated_failures import Attempt
from langchain_automix.mix.query import QueryState
from langchain_automix.models.failures import (
    is_answer_failure,
    is_cut_short,
    is_fault,
    missing_answer_reason,
)
from langchain_automix.models.logprobs import (
    is_known,
    may_refuse_logprobs,
    refuses_logprobs,
    token_logprobs,
)
from langchain_automix.models.refusals import LOGPROBS
from langchain_automix.models.tools import tool_call_problem, tool_parts
from langchain_automix.models.usage import UsageCollector
from langchain_automix.models.written_calls import written_call
from langchain_automix.types import Decision, Verification, Visit

# LangGraph's message stream omits runs with this tag; a draft may still be rejected.
NOT_FOR_USERS = "nostream"
# They start or shape a stream, but a draft is requested in one piece.
_STREAM_ONLY = frozenset({"stream", "stream_options", "stream_usage"})


def request_answer(config: MixConfig, query: QueryState, decision: Decision) -> Steps[bool]:
    """Ask the model that a decision names; a failed call counts as an unusable answer.

    Retries and fallbacks are left to the model itself: a failed call is not repeated here.

    Returns:
        Whether there is an answer, or a failure in its place. False means that the server refuses
        log-probabilities, which the opening relied on, so the opening must be decided again.
    """
    index = decision.model_index
    hedged = query.hedged.pop(index, None)
    usage = UsageCollector(mends=False)
    call = answer_call(config, query, decision, usage)
    call, watch = (call, None) if hedged else watched(config, query, decision, call)
    answer: ModelAnswer | None = None
    problem, failed, shown = None, None, False
    for _ in range(1 + config.retries_if_unusable):
        started = time.perf_counter()
        usage.clear()
        try:
            answer = yield from _ask_model(config, query, call, index, hedged, usage)
            if answer is None or note_given_up(query, decision, watch, usage):
                return answer is not None
        except Exception as error:
            if hedged is None:
                seconds = time.perf_counter() - started
                _note_failed_call(config, query, decision, call, usage, error, seconds)
            if config.forced is not None or _was_shown(call) or not is_answer_failure(error):
                raise
            query.errors[index] = error
            failed = type(error).__name__
            answer, problem = None, f"the answering call failed ({type(error).__name__})"
            break
        finally:
            query.ledger.add_seconds(str(call.run_name), time.perf_counter() - started)
        if hedged is None:
            config.pace.learn("answer", index, time.perf_counter() - started)
            query.ledger.add_reply(index, usage, answer.message, config.models[index])
            _learn_length(config, query, index)
        problem = _problem(config, query, call, index, answer)
        shown = call.guard is not None and hedged is None
        hedged = None
        if problem is None:
            break
    if answer is not None:
        query.answers[index] = answer
        query.shown = index if shown and problem is None else query.shown
    query.outcomes[Attempt("answer", config.names[index])] = failed or problem
    unusable = Verification(problem=problem, usable=False) if problem else None
    query.ledger.visits[index] = Visit(model_index=index, verification=unusable)
    return True


def _note_failed_call(
    config: MixConfig,
    query: QueryState,
    decision: Decision,
    call: Call,
    usage: UsageCollector,
    error: Exception,
    seconds: float,
) -> None:
    index = decision.model_index
    if is_fault(error):
        query.ledger.add_failed_request(index, str(call.run_name), error, usage)
    if isinstance(error, DeadlineError):
        config.pace.learn("answer", index, seconds, at_least=True)


def _learn_length(config: MixConfig, query: QueryState, index: int) -> None:
    usages = [call.usage for call in query.ledger.answered.get(index, ()) if call.usage is not None]
    if usages:
        config.account.learn_answer(index, usages[-1].get("output_tokens", 0))


def answer_call(
    config: MixConfig, query: QueryState, decision: Decision, usage: UsageCollector
) -> Call:
    """Return the call that asks the model named by a decision.

    Args:
        config: The mix.
        query: The state of the query.
        decision: Names the model.
        usage: Collects the requests made by the call; a fallback or a retry may make several.
    """
    index, arguments = decision.model_index, query.arguments
    streams = _may_stream(config, decision)
    if not streams:
        arguments = {name: arguments[name] for name in arguments.keys() - _STREAM_ONLY}
    plain = config.adds_logprobs[index] and not _wants_logprobs(config, decision)
    return Call(
        config.answerer(index, streams=streams, plain=plain),
        query.input,
        run_name="escalate" if query.ledger.visits else "draft",
        tags=[f"automix:{config.names[index]}", *([] if streams else [NOT_FOR_USERS])],
        callbacks=[usage],
        kwargs=arguments,
        audience="everyone" if streams else "tracers",
        guard=StreamGuard() if streams else None,
        is_timed=True,
    )


def _ask_model(
    config: MixConfig,
    query: QueryState,
    call: Call,
    index: int,
    hedged: ModelAnswer | Exception | None,
    usage: UsageCollector,
) -> Steps[ModelAnswer | None]:
    if hedged is not None:  # already reported to the breaker
        return _hedged_answer(hedged)
    breaker, name = config.breaker, config.names[index]
    circuit = None if breaker is None else config.circuits[index]
    flow = _read_reply(config, query, call, index, usage)
    return with_breaker(breaker, circuit, name, flow, hurried=is_hurried(query))


def is_hurried(query: QueryState) -> bool:
    """Whether so little time is left that even a healthy model may need more."""
    return query.clock is not None and query.clock.left < query.clock.limit / 2


def _hedged_answer(hedged: ModelAnswer | Exception) -> Steps[ModelAnswer]:
    """Return the answer that a model gave before it was needed."""
    yield from ()
    if isinstance(hedged, Exception):
        raise hedged
    return hedged


def _read_reply(
    config: MixConfig, query: QueryState, call: Call, index: int, usage: UsageCollector
) -> Steps[ModelAnswer | None]:
    """Return a model's answer, or None if the opening must be decided again."""
    output = yield from _gather_reply(query, call, index, usage)
    plain = config.answerer(index, streams=call.guard is not None, plain=True)
    if output is CLOSED or call.runnable is plain or not config.adds_logprobs[index]:
        return read_answer(config, index, output)
    if not isinstance(output, Exception):
        answer = read_answer(config, index, output)
        if _lacks_logprobs(answer):
            LOGPROBS.remember(config.models[index])
        return answer
    if not may_refuse_logprobs(output):
        return read_answer(config, index, output)
    if refuses_logprobs(output) and config.buys_checks and not query.ledger.visits:
        LOGPROBS.remember(config.models[index])
        if LOGPROBS.knows(config.models[index]):
            return None
    # A refused request costs nothing. The server may accept it without log-probabilities.
    usage.clear()
    again = yield from _gather_reply(query, replace(call, runnable=plain), index, usage)
    if isinstance(again, Exception):
        return read_answer(config, index, output)
    LOGPROBS.remember(config.models[index])
    return read_answer(config, index, again)


def _gather_reply(query: QueryState, call: Call, index: int, usage: UsageCollector) -> Steps[Any]:
    try:
        [output] = yield from gather(call)
    except GeneratorExit:
        if call.started:
            query.ledger.add_lost_request(index, usage)
        raise
    return output


def _wants_logprobs(config: MixConfig, decision: Decision) -> bool:
    """Whether to request log-probabilities with the answer that a decision asks for."""
    is_read = not config.has_default_check or (config.buys_checks and decision.samples != 0)
    return is_read and not LOGPROBS.knows(config.models[decision.model_index])


def _lacks_logprobs(answer: ModelAnswer) -> bool:
    """Whether a server omitted the log-probabilities of an answer that should have them."""
    message = answer.message
    if message.tool_calls or not str(message.text).strip():
        return False
    sent = token_logprobs(message.response_metadata.get("logprobs"))
    return not any(is_known(token.logprob) for token in sent)


def read_answer(config: MixConfig, index: int, output: Any) -> ModelAnswer:
    """Read the output of a model's call, or the error that stands for an answer.

    Raises:
        Exception: The call's error, unless it is a client's way to reject an answer that does not
            fit.
        CutShortError: The stream of the answer ended too early.
        AutoMixError: The output contains no message.
    """
    if output is CLOSED:
        return ModelAnswer(AIMessage(""))  # never shown to anyone
    if isinstance(output, Exception):
        if (unfit := config.answer_format.read_error(output)) is None:
            raise output
        return unfit
    answer = config.answer_format.read(output, index)
    if not config.allow_missing_finish_reason and is_cut_short(answer.message):
        raise CutShortError(
            f"The stream of {config.names[index]} ended before its answer did: the provider never "
            "said why it ended (no finish_reason). Ask again, or see what stands between; if its "
            "server never says why, set allow_missing_finish_reason=True."
        )
    return answer


def _was_shown(call: Call) -> bool:
    return call.guard is not None and call.guard.shown


def _may_stream(config: MixConfig, decision: Decision) -> bool:
    """Whether the coming answer will be kept whatever it says, and so may be streamed."""
    answer_format = config.answer_format
    if not answer_format.may_stream or decision.samples != 0:
        return False
    may_fail = answer_format.tools or answer_format.may_be_unusable or config.always_escalate_tools
    if config.forced is not None or not may_fail:
        return True
    is_last = decision.model_index == len(config.models) - 1
    return is_last and not config.retries_if_unusable


def _problem(
    config: MixConfig, query: QueryState, call: Call, index: int, answer: ModelAnswer
) -> str | None:
    """Say why an answer cannot be used, as far as no model is needed to tell; else None."""
    if config.forced is not None:
        return None
    problem = answer.problem or missing_answer_reason(answer.message)
    problem = problem or _tool_problem(config, index, answer)
    if problem and _was_shown(call):
        query.degraded = f"{problem[0].upper()}{problem[1:]}, after a part was shown."
        return None
    return problem


def _tool_problem(config: MixConfig, index: int, answer: ModelAnswer) -> str | None:
    if (reserved := reserved_tool_problem(config, index, answer)) is not None:
        return reserved
    tools, must_call = config.answer_format.tools, config.answer_format.must_call
    if not tools:
        return None
    problem = tool_call_problem(answer.message, tools, must_call=must_call)
    if problem is None and index < len(config.models) - 1:
        # If no other model is left to ask, the answer is passed on as the plain model would give
        # it.
        written = written_call(answer.message, lambda: {tool_parts(tool)[0] for tool in tools})
        problem = written and f"the answer writes a call of {written!r} as text, and calls no tool"
    return problem


def reserved_tool_problem(config: MixConfig, index: int, answer: ModelAnswer) -> str | None:
    """Say why an answer of the first model breaks `always_escalate_tools`; None if it does not."""
    for call in answer.message.tool_calls if index == 0 else ():
        if call["name"] in config.always_escalate_tools:
            return f"the answer calls {call['name']!r}, which only a larger model may call"
    return None
