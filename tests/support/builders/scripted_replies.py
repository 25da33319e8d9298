"""What a loopback server may answer: texts, tool calls, errors, and a connection that is cut."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCEPT = "The context says so.\nVerification Decision: Correct"
REJECT = "The context says otherwise.\nVerification Decision: Incorrect"

_VERDICTS = {"a": ACCEPT, "r": REJECT, "i": "I would rather not say."}

Body = dict[str, Any]
"""A request in the shape of OpenAI's chat completions, whatever wire it came by."""

Reply = str | dict[str, Any]
"""A text, or an assistant message (`content`, `tool_calls`, perhaps its own `finish_reason`)."""


@dataclass(frozen=True)
class Error:
    """A status with its body: None is the provider's own shape, a str goes out as it is."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cut:
    """The connection breaks: after so many pieces of a stream, or half-way through a body."""

    reply: Reply
    after: int = 1
    politely: bool = False
    """Whether the stream just ends, as one that is whole does."""


Outcome = Sequence[Reply] | int | Error | Cut
"""As many replies as the request asks for; or the status of an error; or a fault."""

Script = Callable[[Body], Outcome]

_ids = itertools.count(1)


def call(name: str, /, **args: Any) -> dict[str, Any]:
    """An assistant message that calls one tool."""
    function = {"name": name, "arguments": json.dumps(args, ensure_ascii=False)}
    # An agent pairs results with calls by id, so that no two calls of a run may share one.
    tool_call = {"id": f"call_{next(_ids)}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [tool_call]}


def calls(*messages: dict[str, Any]) -> dict[str, Any]:
    """One message with the calls of several: `calls(call("a", x=1), call("b"))`."""
    together = [tool_call for message in messages for tool_call in message["tool_calls"]]
    return {"role": "assistant", "content": None, "tool_calls": together}


def text_of(content: Any) -> str:
    """The words of a message whose content may be absent or come in blocks."""
    if isinstance(content, list):
        return "".join(block.get("text", "") for block in content if isinstance(block, dict))
    return content or ""


def is_check(body: Body) -> bool:
    """Whether a check's instruction comes first, or last after the conversation."""
    first, last = (text_of(body["messages"][i].get("content")) for i in (0, -1))
    return "You check answers" in first or "Now check the last answer" in last


def judging(verdicts: str = "a") -> Callable[[Body], list[str]]:
    """Verdicts a (accept), r (reject) and i (illegible), drawn from a cycle."""
    stream = itertools.cycle(verdicts)
    return lambda body: [_VERDICTS[next(stream)] for _ in range(body.get("n") or 1)]


def answering(*answers: str, verdicts: str = "a") -> Script:
    """Models small, large, ... answer in this order; verdicts a, r, i are drawn from a cycle."""
    judge = judging(verdicts)
    by_model = dict(zip(("small", "large", "third"), answers, strict=False))

    def script(body: Body) -> list[str]:
        return judge(body) if is_check(body) else [by_model[body["model"]]] * (body.get("n") or 1)

    return script
