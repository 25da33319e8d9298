"""What a check costs by its layout, where the provider caches prompts as OpenAI does."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from langchain_core.prompts import ChatPromptTemplate

from langchain_automix import AutoMixRunnable, SelfVerifier, ThresholdRouter
from langchain_automix.verifiers.token_probability import TokenProbabilityVerifier
from tests.support.builders.scripted_replies import Body, is_check, text_of
from tests.support.servers.loopback import Pause
from tests.support.servers.openai_server import OpenAIServer, token
from tests.support.servers.prompt_cache import PromptCache

Row = tuple[str, ...]

CONTEXTS = (3_000, 12_000)
PRICES = {"small": (0.25, 2.00), "large": (1.25, 10.00)}
"""Dollars for a million tokens, read and written: those of gpt-5-mini and gpt-5."""

SHARES = (0.1, 0.5)
"""What a cached token costs of one that is not: OpenAI's newest models, and gpt-4o."""

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You answer questions of our customers by the documents alone, in a sentence."),
        ("human", "Documents:\n{context}\n\nQuestion: {question}"),
    ]
)
ANSWER = "The warranty lasts for three years from the day on which the goods were delivered."
_REASON = "The documents say that the warranty lasts for two years, and the answer says three."


def at_once(requests: int) -> Pause:
    """Return a provider that has so many checks before it, before it goes on with one."""
    all_there = threading.Barrier(requests, timeout=60)

    def wait(body: Body) -> float:
        if is_check(body):
            all_there.wait()
        return 0.0

    return wait


class Bill(NamedTuple):
    """What some requests were billed, in tokens."""

    read: int = 0
    cached: int = 0
    written: int = 0

    def dollars(self, model: str, share: float) -> float:
        """Return the price, with cached tokens at a share of the price of others."""
        price_in, price_out = PRICES[model]
        read = self.read - self.cached + share * self.cached
        return (read * price_in + self.written * price_out) / 1e6


class Query(NamedTuple):
    """What one query was billed that was answered, checked, rejected and escalated."""

    answer: Bill
    check: Bill
    escalation: Bill
    checker: str

    def dollars(self, share: float) -> float:
        """Return the price of all."""
        return (
            self.answer.dollars("small", share)
            + self.check.dollars(self.checker, share)
            + self.escalation.dollars("large", share)
        )


def documents(words: int) -> str:
    """Return a context of so many words, no two lines of it alike."""
    return "\n".join(
        " ".join(f"clause{line}.{word}" for word in range(20)) for line in range(words // 20)
    )


def tools(number: int = 12) -> list[dict[str, Any]]:
    """Return tools as an agent may have them, of some 100 tokens each."""
    fields = {
        name: {"type": "string", "description": f"The {name} of the thing that is asked for."}
        for name in ("customer", "order", "country")
    }
    return [
        {
            "type": "function",
            "function": {
                "name": f"look_up_{i}",
                "description": f"Look up what is known of thing number {i} in our books.",
                "parameters": {"type": "object", "properties": fields, "required": ["customer"]},
            },
        }
        for i in range(number)
    ]


def _rejects(body: Body) -> list[Any]:
    """Reply to a check in the form that it asks for, always rejecting."""
    said = " ".join(text_of(message.get("content")) for message in body["messages"])
    wanted = body.get("response_format")
    if wanted:
        fields = wanted["json_schema"]["schema"]["properties"]
        reason = {"reasoning": _REASON} if "reasoning" in fields else {}
        reply: Any = json.dumps({**reason, "correct": False})
    elif "Reply with one word" in said:
        reply = {"content": "No", "logprobs": [token("No", 0.9, Yes=0.1)]}
    elif "Write only the verdict" in said:
        reply = "Verification Decision: Incorrect"
    else:
        reply = f"{_REASON}\nVerification Decision: Incorrect"
    return [reply] * (body.get("n") or 1)


def ask(
    server: OpenAIServer,
    mix: Any,
    words: int,
    checker: str = "small",
    content: str = ANSWER,
    pause: Pause = 0.0,
) -> Query:
    """Return what a query is billed, on an empty cache."""
    kinds: list[str] = []

    def script(body: Body) -> list[Any]:
        if is_check(body):
            kinds.append("check")
            return _rejects(body)
        kinds.append("answer" if body["model"] == "small" else "escalation")
        return [content]

    server.script, server.prompt_cache = script, PromptCache()
    server.delay = pause
    server.billed.clear()
    question = {"context": documents(words), "question": "How long is the warranty?"}
    mix.invoke(question, {"max_concurrency": 16})  # so that samples are sent all at once
    bills = {kind: Bill() for kind in ("answer", "check", "escalation")}
    for kind, told in zip(kinds, server.billed, strict=True):
        cached = told["prompt_tokens_details"]["cached_tokens"]
        found = (told["prompt_tokens"], cached, told["completion_tokens"])
        bills[kind] = Bill(*(a + b for a, b in zip(bills[kind], found, strict=True)))
    return Query(**bills, checker=checker)


def mix_of(server: OpenAIServer, verifier: Any) -> AutoMixRunnable:
    """Return a mix that escalates what the check rejects."""
    small, large = server.model("small"), server.model("large")
    router = ThresholdRouter(threshold=0.5)
    return AutoMixRunnable.from_models(
        small, large, verifier=verifier, router=router, prompt=PROMPT
    )


def kinds_of(large: Any) -> Iterator[tuple[str, Any, str]]:
    """Yield the checks that are compared: a name, a verifier, and which model checks."""
    for layout in ("few_shot", "zero_shot", "conversation"):
        for sampling in ("n", "parallel"):
            name = f"8 verdicts, {layout}, {sampling}"
            yield name, SelfVerifier(layout=layout, sampling=sampling), "small"
    in_place: Any = {"layout": "conversation", "sampling": "n"}
    yield "... verdict only, n", SelfVerifier(reasoning=False, **in_place), "small"
    yield "... structured, n", SelfVerifier(structured=True, **in_place), "small"
    yield "one word, few_shot", TokenProbabilityVerifier(), "small"
    yield "one word, conversation", TokenProbabilityVerifier(layout="conversation"), "small"
    by_large = TokenProbabilityVerifier(model=large)
    yield "one word of the large, few_shot", by_large, "large"
    by_large = TokenProbabilityVerifier(model=large, layout="conversation")
    yield "one word of the large, conversation", by_large, "large"
    eight = SelfVerifier(model=large, **in_place)
    yield "8 verdicts of the large, conversation, n", eight, "large"


def layouts(words: int) -> tuple[Row, list[Row]]:
    """Return what checks cost on one question with a context of so many tokens."""
    heads = (
        f"check (context of {words:,} tokens)",
        "read",
        "of it cached",
        "written",
        *(f"check / answer, cached at {share:.0%}" for share in SHARES),
        "escalation: cached",
        *(f"query / large alone, at {share:.0%}" for share in SHARES),
    )
    rows: list[Row] = []
    with OpenAIServer() as server:
        for name, verifier, checker in kinds_of(server.model("large")):
            pause = at_once(8) if getattr(verifier, "sampling", "") == "parallel" else 0.0
            query = ask(server, mix_of(server, verifier), words, checker, pause=pause)
            alone = query.escalation._replace(cached=0).dollars("large", 1.0)
            rows.append(
                (
                    name,
                    *_counts(query.check),
                    *(f"{_check_by_answer(query, share):.2f}" for share in SHARES),
                    f"{query.escalation.cached:,} of {query.escalation.read:,}",
                    *(f"{query.dollars(share) / alone:.2f}" for share in SHARES),
                )
            )
    return heads, rows


def _check_by_answer(query: Query, share: float) -> float:
    return query.check.dollars(query.checker, share) / query.answer.dollars("small", share)


def _counts(bill: Bill) -> Sequence[str]:
    return f"{bill.read:,}", f"{bill.cached:,}", f"{bill.written:,}"


class WithoutTools(SelfVerifier):
    """A check that leaves the answering call's tools out of its request, as text alone."""

    def _can_send(self, tools: Sequence[dict[str, Any]]) -> bool:
        del tools
        return False


SCHEMA = {
    "title": "Warranty",
    "description": "What the warranty is.",
    "type": "object",
    "properties": {"years": {"type": "integer"}, "from": {"type": "string"}},
    "required": ["years", "from"],
}
SHAPED = json.dumps({"years": 3, "from": "delivery"})


def beside(words: int = 3_000) -> tuple[Row, list[Row]]:
    """Return what is left of the cached prefix where more than messages stands before it."""
    heads = (
        f"check in its conversation (context of {words:,} tokens)",
        "answer read",
        "check read",
        "of it cached",
        *(f"check / answer, cached at {share:.0%}" for share in SHARES),
    )
    kept = SelfVerifier(layout="conversation")
    left_out = WithoutTools(layout="conversation")
    structured = SelfVerifier(layout="conversation", structured=True)
    rows: list[Row] = []
    with OpenAIServer() as server:

        def row(name: str, mix: Any, content: str = ANSWER) -> None:
            query = ask(server, mix, words, content=content)
            shares = (f"{_check_by_answer(query, share):.2f}" for share in SHARES)
            rows.append((name, f"{query.answer.read:,}", *_counts(query.check)[:2], *shares))

        row("no tools", mix_of(server, kept))
        row("12 tools, kept and none to be called", mix_of(server, kept).bind_tools(tools()))
        row("12 tools, listed in the check", mix_of(server, left_out).bind_tools(tools()))
        row("structured verdicts", mix_of(server, structured))
        shaped = mix_of(server, kept).with_structured_output(SCHEMA, method="json_schema")
        row("structured answers (json_schema)", shaped, SHAPED)
    return heads, rows


def batches(questions: int = 50, contexts: int = 5, words: int = 3_000) -> tuple[Row, list[Row]]:
    """Return how much of a batch's prompts is served from the cache, whose answers take 30 ms.

    Beside the mix stands the small model's own batch of the same prompts.
    """
    heads = (
        f"{questions} questions on {contexts} contexts of {words:,} tokens",
        "drafts not served, model alone",
        "mix",
        "of all that the mix reads, cached",
        f"input / without a cache, cached at {SHARES[0]:.0%}",
    )
    by_context = [
        {"context": f"Part {k}. {documents(words)}", "question": f"Which is clause {i}?"}
        for k in range(contexts)
        for i in range(questions // contexts)
    ]
    shuffled = random.Random(1).sample(by_context, len(by_context))
    rows: list[Row] = []
    for how, cap in (("batch", None), ("batch", 8), ("abatch", 8), ("abatch", 3), ("abatch", None)):
        for order, given in (("by context", by_context), ("shuffled", shuffled)):
            name = f"{how}, {f'at most {cap} at once' if cap else 'no limit'}, {order}"
            rows.append((name, *_batch(how, cap, given)))
    return heads, rows


def _batch(how: str, cap: int | None, given: list[dict[str, str]]) -> Iterator[str]:
    """Yield the columns of one batch."""
    alone = _billed(lambda server: PROMPT | server.model("small"), how, cap, given)
    yield str(_not_served(alone))
    billed = _billed(lambda server: mix_of(server, SelfVerifier(samples=1)), how, cap, given)
    yield str(_not_served(billed[: len(given)]))  # the drafts are the first level
    read = sum(told["prompt_tokens"] for told in billed)
    cached = sum(map(_served, billed))
    yield f"{cached / read:.0%}"
    yield f"{(read - cached + SHARES[0] * cached) / read:.2f}"


def _billed(
    asked: Callable[[OpenAIServer], Any], how: str, cap: int | None, given: list[dict[str, str]]
) -> list[dict[str, Any]]:
    """Return what a batch is billed, on an empty cache."""
    with OpenAIServer() as server:
        server.script = lambda body: _rejects(body) if is_check(body) else [ANSWER]
        server.delay, server.prompt_cache = 0.03, PromptCache()
        config: Any = {"max_concurrency": cap} if cap else {}
        if how == "batch":
            asked(server).batch(given, config)
        else:
            asyncio.run(asked(server).abatch(given, config))
        return server.billed


def _served(told: dict[str, Any]) -> int:
    return int(told["prompt_tokens_details"]["cached_tokens"])


def _not_served(billed: Sequence[dict[str, Any]]) -> int:
    return sum(not _served(told) for told in billed)


def tables() -> Iterator[tuple[Row, list[Row]]]:
    """Yield the tables, each its heads and its rows."""
    for words in CONTEXTS:
        yield layouts(words)
    yield beside()
    yield batches()
