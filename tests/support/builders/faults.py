"""What tests of faults share: models that fail in every way that a provider can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from langchain_automix import AutoMixRunnable, ThresholdRouter
from tests.support.builders.scripted_replies import (
    ACCEPT,
    REJECT,
    Body,
    Cut,
    Error,
    Outcome,
    is_check,
)
from tests.support.servers.openai_server import OpenAIServer

WAYS = ("invoke", "ainvoke", "batch", "abatch", "stream", "astream")
PRICES = {name: {"input": 1, "output": 2} for name in ("small", "large", "third")}
SLOW = 1.5
TOO_LONG = {
    "error": {"message": "context_length_exceeded: 9 of 8", "type": "invalid_request_error"}
}


@dataclass(frozen=True)
class Fault:
    """A way in which a request fails."""

    outcome: Any
    error: str
    """Type of the error, as the record names it."""

    billed_unseen: bool = False
    streamed: str | None = None
    """Type of the error where the answer would have come as a stream, if that is another."""

    def named(self, way: str) -> str:
        """The error as the record names it, where the answer is shown as it comes."""
        return (self.streamed if "stream" in way else None) or self.error


FAULTS = {
    "timeout": Fault("slow", "OpenAITimeoutError", billed_unseen=True),
    "429": Fault(Error(429, headers={"Retry-After": "1"}), "OpenAIRateLimitError"),
    "500": Fault(500, "OpenAIAPIError"),
    "cut": Fault(Cut("Half an answer."), "OpenAIConnectionError", billed_unseen=True),
    "malformed": Fault(
        Error(200, '{"choices": ['), "JSONDecodeError", billed_unseen=True, streamed="ValueError"
    ),
    "too long": Fault(Error(400, TOO_LONG), "OpenAIContextOverflowError"),
}


class Desk:
    """Says what each model answers (a text, an outcome, or a `Fault`) and what the checks say."""

    def __init__(self, server: OpenAIServer, check: Any = ACCEPT, **answers: Any) -> None:
        self.server, self.check, self.answers = server, check, answers
        server.script = self._serve
        server.delay = self._delay

    @property
    def is_slow(self) -> bool:
        said = [self.check, *self.answers.values()]
        return any(isinstance(it, Fault) and it.outcome == "slow" for it in said)

    def _of(self, body: Body) -> Any:
        found = self.check if is_check(body) else self.answers[body["model"]]
        if isinstance(found, dict) and "content" not in found:  # by the model that checks
            found = found[body["model"]]
        return found.outcome if isinstance(found, Fault) else found

    def _delay(self, body: Body) -> float:
        return SLOW if self._of(body) == "slow" else 0.0

    def _serve(self, body: Body) -> Outcome:
        found = self._of(body)
        if isinstance(found, str | dict):
            return [found] * (body.get("n") or 1)
        outcome: Outcome = found
        return outcome

    def asked(self) -> list[str]:
        """Who was asked for an answer, in order, and `check` where a check was."""
        return ["check" if is_check(body) else body["model"] for body in self.server.requests]


def mixed(server: OpenAIServer, *names: str, **fields: Any) -> AutoMixRunnable:
    """A mix of models that wait for a moment only, where an answer may not come."""
    desk = getattr(server.delay, "__self__", None)
    timeout = 10.0 if isinstance(desk, Desk) and not desk.is_slow else 0.6
    models = [
        server.model(name, timeout=timeout, stream_usage=True)
        for name in names or ("small", "large")
    ]
    fields = {"router": ThresholdRouter(), "prices": PRICES, **fields}
    return AutoMixRunnable.from_models(*models, **fields)


async def ask(way: str, mix: Any, question: Any = "Where?", config: Any = None) -> Any:
    """Ask one question by any way; of a stream, all chunks added up."""
    match way:
        case "invoke":
            return mix.invoke(question, config)
        case "ainvoke":
            return await mix.ainvoke(question, config)
        case "batch":
            return mix.batch([question], config)[0]
        case "abatch":
            return (await mix.abatch([question], config))[0]
        case "stream":
            chunks = list(mix.stream(question, config))
        case _:
            chunks = [chunk async for chunk in mix.astream(question, config)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


__all__ = ["ACCEPT", "FAULTS", "PRICES", "REJECT", "SLOW", "WAYS", "Desk", "Fault", "ask", "mixed"]
