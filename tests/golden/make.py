"""Make the golden files: what users keep, as the version that runs this script writes it.

Run `python -m tests.golden.make` from the root of the repository, and only with a version whose
files are to be kept readable: the files here were written before any module was moved, and a
later run would replace what they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from langchain_core.load import dumpd
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langchain_openai.decisions import OpenAIDecisions
from pydantic import SecretStr

from langchain_automix import (
    AgreementVerifier,
    AutoMixRunnable,
    ChatAutoMix,
    CombinedVerifier,
    DecisionVerifier,
    EarlierAgreementVerifier,
    FunctionVerifier,
    LogProbabilityVerifier,
    PatternVerifier,
    POMDPRouter,
    RoutingLog,
    RoutingState,
    SchemaVerifier,
    SelfVerifier,
    SupportVerifier,
    ThresholdRouter,
    TokenProbabilityVerifier,
    Verification,
    calibrate,
)
from langchain_automix.calibration.config import CalibrationConfig
from langchain_automix.calibration.fingerprints import json_hash, model_fingerprint
from langchain_automix.calibration.graders.custom import grader_name, to_grader
from langchain_automix.calibration.graders.judges import EmbeddingSimilarity, LLMJudge
from langchain_automix.calibration.graders.text import GRADERS, exact_match, token_f1
from langchain_automix.local.recording import Recorder
from langchain_automix.routers.baselines import (
    AlwaysRouter,
    DoubleThresholdRouter,
    FittedThresholdRouter,
    OracleRouter,
    RandomMixRouter,
    ReleasedPOMDPRouter,
)
from langchain_automix.utils.fingerprints import fingerprint_of
from tests.support.builders.logs_with_extra_checks import several
from tests.support.builders.scripted_replies import ACCEPT, REJECT, Body, Outcome
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, is_check

HERE = Path(__file__).parent
NOWHERE = "http://127.0.0.1:1/v1"
"""Where the models of dumped objects are; a test puts its own server in its place."""

PRICES = {
    "small": {"input": 1.0, "output": 2.0},
    "judge": {"input": 1.0, "output": 2.0},
    "large": {"input": 10.0, "output": 20.0},
}
RAG_PROMPT = ChatPromptTemplate.from_template("Read: {context}\nAnswer: {question}")
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look up the weather.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
SCHEMA = {"title": "Place", "type": "object", "properties": {"place": {"type": "string"}}}
SEEN: tuple[tuple[bool | None, ...], ...] = (
    (True,),
    (False,),
    (None,),
    (True, True, False),
    (True, False, False),
    (True,) * 8,
    (True,) * 5 + (False,) * 3,
    (False,) * 8,
)
"""Verdicts after which a policy is asked what it does."""

SCORES = (0.05, 0.35, 0.5, 0.65, 0.95)


def model(name: str, base_url: str = NOWHERE, **settings: Any) -> ChatOpenAI:
    """Return a model on a server of OpenAI's kind."""
    return ChatOpenAI(
        model=name, base_url=base_url, max_retries=0, api_key=SecretStr("test"), **settings
    )


def script(body: Body) -> Outcome:
    """Answer for ships: the small model knows the even ones, and its check accepts those."""
    text, n = json.dumps(body["messages"]), body.get("n") or 1
    number = int(text.rpartition("ship ")[2].split()[0])
    if is_check(body):
        return [ACCEPT if (number % 2 == 0 or i == 0) else REJECT for i in range(n)]
    if body["model"] == "judge":
        return [f"It is so.\nGrade: {5 if number % 2 == 0 else 2}"] * n
    return ["Turku" if body["model"] == "large" or number % 2 == 0 else "Oslo"] * n


def examples(number: int, labelled: int) -> list[dict[str, Any]]:
    """Return questions, the first of them with an accepted answer."""
    return [
        {
            "question": f"Where was ship {i} built?",
            "context": f"The ship {i} was built in Turku.",
            **({"reference": "Turku"} if i < labelled else {}),
        }
        for i in range(number)
    ]


def calibrate_exact(base_url: str, out: Path) -> RoutingLog:
    """Calibrate with a named grader and the usual check, one call at a time."""
    models = [model("small", base_url), model("large", base_url)]
    return calibrate(examples(6, 5), models, prices=PRICES, out=out, concurrency=1)


def calibrate_judged(base_url: str, out: Path) -> RoutingLog:
    """Calibrate with a judge for a grader and several checks, one call at a time."""
    checks = CombinedVerifier(
        checks={
            "self": SelfVerifier(samples=3),
            "pattern": PatternVerifier(pattern="Turku"),
        }
    )
    mix = AutoMixRunnable(
        models=[model("small", base_url), model("large", base_url)],
        verifier=checks,
        prompt=RAG_PROMPT,
        prices=PRICES,
    )
    judge = LLMJudge(model=model("judge", base_url))
    return calibrate(examples(4, 3), mix, quality=judge, out=out, concurrency=1)


JOURNALS: dict[str, tuple[Callable[[str, Path], RoutingLog], int]] = {
    "exact": (calibrate_exact, 11),
    "judged": (calibrate_judged, 13),
}
"""How each journal is made, and after how many lines it is broken off."""


def decisions(router: POMDPRouter) -> list[Any]:
    """Return what a policy does, as plain values: its openings, and its next steps."""
    found = [router.opening(2, query_id) for query_id in ("a", "b", "c", "d")]
    states = [Verification(verdicts=verdicts) for verdicts in SEEN]
    if router.policy.version == 2:
        for first in (Verification(), Verification(verdicts=(True, False))):
            for name in ("logprob", "judge"):
                checks = [{name: Verification(score=score)} for score in SCORES]
                states += [first.model_copy(update={"checks": each}) for each in checks]
    for query_id in ("a", "d"):
        for verification in states:
            state = RoutingState.after(verification).model_copy(update={"query_id": query_id})
            found.append(router.decide(state))
    # What the sentence says may be said better; what is done, and the values, are the policy's.
    return [each.model_dump(mode="json", exclude={"why"}) for each in found]


def verifiers() -> dict[str, Any]:
    """Return one or more of each check, by name."""
    small, schema = model("small", temperature=0.2), {"type": "object", "required": ["a"]}
    found: dict[str, Any] = {
        "self": SelfVerifier(),
        "self, set": SelfVerifier(samples=3, temperature=0.5, model=small),
        "agreement": AgreementVerifier(model=small, samples=2, compare="exact"),
        "agreement by function": AgreementVerifier(model=small, compare=token_f1),
        "earlier agreement": EarlierAgreementVerifier(compare=small),
        "log probability": LogProbabilityVerifier(statistic="margin"),
        "pattern": PatternVerifier(pattern=r"\d+", whole=False),
        "schema": SchemaVerifier(schema=schema),
        "support": SupportVerifier(model=small, max_statements=3),
        "token probability": TokenProbabilityVerifier(),
    }
    for language in ("de", "fr", "es", "zh"):
        found[f"self, {language}"] = SelfVerifier(wording=language)
        found[f"token probability, {language}"] = TokenProbabilityVerifier(wording=language)
    found["combined"] = CombinedVerifier(checks={"a": found["self"], "b": found["pattern"]})
    return found


def dumps() -> dict[str, Any]:
    """Return an object of every class that `dumpd` writes for `load` to read, by its name."""
    log = world(60, k=2)
    routers: list[Any] = [
        ThresholdRouter(threshold=0.7),
        OracleRouter.fit(log),
        *(
            kind.fit(log)
            for kind in (
                AlwaysRouter,
                DoubleThresholdRouter,
                FittedThresholdRouter,
                POMDPRouter,
                ReleasedPOMDPRouter,
            )
        ),
        RandomMixRouter.fit(log, max_cost=4.0),
    ]
    mix = AutoMixRunnable.from_models(
        model("small"), model("large"), router=ThresholdRouter(threshold=0.7), prompt=RAG_PROMPT
    )
    judge = LLMJudge(model=model("judge"), rubric="Is it right?")
    by_name = {type(each).__name__: each for each in (*routers, judge)}
    checks = verifiers()
    del checks["agreement by function"]  # a function is not written down
    found = {**by_name, **checks, "structured": mix.with_structured_output(SCHEMA)}
    found["mix"] = AutoMixRunnable.from_models(
        model("small"),
        model("large"),
        router=POMDPRouter.load(HERE / "policy-v1.json"),
        prompt=RAG_PROMPT,
        always_escalate_tools=["pay"],
    ).bind_tools([TOOL], tool_choice="auto")
    return found


class _Embeddings:
    """Stands for embeddings; only its name is asked for."""

    model = "some-embeddings"


def fingerprints() -> dict[str, str]:
    """Return what stands for graders, checks and models in journals and policies."""
    found = {f"verifier {name}": fingerprint_of(each) for name, each in verifiers().items()}
    found["verifier function"] = FunctionVerifier(function=exact_match).fingerprint
    decides = OpenAIDecisions(model="judge", api_key=SecretStr("test"), base_url=NOWHERE)
    found["verifier decision"] = DecisionVerifier(model=decides).fingerprint
    own: Any = exact_match
    found["verifier runnable"] = fingerprint_of(RunnableLambda(own))
    found |= {f"grader {name}": grader_name(to_grader(name)) for name in GRADERS}
    small, large = model("small"), model("large", temperature=0.3)
    judge = LLMJudge(model=small)
    found["grader judge"] = grader_name(judge)
    found["grader similarity"] = grader_name(
        EmbeddingSimilarity.model_construct(embeddings=_Embeddings(), low=0.0, high=1.0)  # type: ignore[arg-type]
    )
    mix = AutoMixRunnable.from_models(small, large, router=ThresholdRouter(), prices=PRICES)
    found["class mix"] = grader_name(type(mix))
    found["class chat model"] = grader_name(ChatAutoMix)
    found["class judge"] = grader_name(LLMJudge)
    found["model"] = model_fingerprint(small)
    found["model with tools"] = model_fingerprint(small.bind_tools([TOOL]))
    found["model mix"] = model_fingerprint(ChatAutoMix(models=[small, large]))
    checks: dict[str, Any] = {
        "self": SelfVerifier(),
        "judge": judge,
        "router": ThresholdRouter(threshold=0.7),
        "function": exact_match,
    }
    for name, each in checks.items():  # as they stand in what a prompt or a model holds
        found[f"settings {name}"] = json_hash([each])
        found[f"bound {name}"] = model_fingerprint(small.bind(extra=each))
    for name in ("exact_match", "f1", "numeric"):
        found[f"row {name}"] = CalibrationConfig(mix, to_grader(name), "dollars").row_fingerprint
    found["row judge"] = CalibrationConfig(mix, judge, "dollars").row_fingerprint
    return found


def record(path: Path) -> None:
    """Record two calls, one of them streamed."""
    with OpenAIServer() as server:
        server.script = script
        recorder = Recorder()
        recorded = model("small", server.base_url, http_client=httpx.Client(transport=recorder))
        recorded.invoke("Where was ship 2 built?")
        list(recorded.stream("Where was ship 3 built?"))
        recorder.recording({"seed": 1}).write(path)


def main() -> None:
    """Write all golden files beside this one."""
    write_json("fingerprints.json", fingerprints())
    world(40).write(HERE / "log-one-check.jsonl")
    several(40, lost=0.1).write(HERE / "log-several-checks.jsonl")
    policies = {
        "policy-v1": POMDPRouter.fit(
            world(200, k=4), max_cost=4.0, verifier=SelfVerifier().fingerprint
        ),
        "policy-v2": POMDPRouter.fit(several(200), cost_weight=0.02),
    }
    for name, router in policies.items():
        router.save(HERE / f"{name}.json")
    write_json("decisions.json", {name: decisions(each) for name, each in policies.items()})
    write_json("dumps.json", {name: dumpd(each) for name, each in dumps().items()})
    with OpenAIServer() as server:
        server.script = script
        for name, (run, lines) in JOURNALS.items():
            out = HERE / f"calibration-{name}.jsonl"
            run(server.base_url, out)
            journal = Path(f"{out}.journal")
            whole = journal.read_text(encoding="utf-8").splitlines(keepends=True)
            journal.write_text("".join(whole[:lines]), encoding="utf-8")
    record(HERE / "recording.json.gz")


def write_json(name: str, value: Any) -> None:
    """Write one file of JSON that a person can compare."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    (HERE / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
