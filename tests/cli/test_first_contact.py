"""What a newcomer types wrong, and what the command line says before anything is paid."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langchain_automix import (
    AgreementVerifier,
    CombinedVerifier,
    FunctionVerifier,
    POMDPRouter,
    SelfVerifier,
)
from langchain_automix.policy.fitting.fit import FEW
from langchain_automix.utils import install
from tests.support.builders.calibrating import (  # noqa: F401  (fixtures)
    MODELS,
    Run,
    folder_fixture,
    run_fixture,
    write,
)
from tests.support.builders.synthetic_logs import world
from tests.support.servers.openai_server import OpenAIServer, is_check

PRICED = ("--prices", "prices.json", "--yes")


def flat(text: str) -> str:
    return " ".join(text.split())


def policy(folder: Path, verifier: Any = None, models: tuple[str, str] = ("small", "large")) -> str:
    records = list(world(60).records())
    for record in records:
        for answer, name in zip(record["answers"], models, strict=True):
            answer["model"] = name
    from langchain_automix import RoutingLog  # noqa: PLC0415

    made = POMDPRouter.fit(
        RoutingLog(records), cost_weight=0.03, verifier=verifier or AgreementVerifier(samples=3)
    )
    made.save(folder / "policy.json")
    return "policy.json"


class TestAnswersUnderAnotherName:
    @pytest.mark.parametrize("name", ["gold.csv", "gold.jsonl"])
    def test_it_is_said_before_anything_is_paid(
        self, run: Run, folder: Path, server: OpenAIServer, name: str
    ) -> None:
        if name == "gold.csv":
            lines = [f"Where was ship {i} built?,Turku" for i in range(60)]
            (folder / name).write_text("\n".join(["question,gold_answer", *lines]))
        else:
            write(folder / name, 60, gold_answer="Turku")
        given = (name, "--out", "log.jsonl", *MODELS, "--prices", "prices.json", "--dry-run")
        code, _, err = run("calibrate", *given)
        assert code == 0
        assert not server.requests
        said = "automix: warning: 0 of 60 examples have accepted answers; columns: question, gold_"
        assert said in flat(err)
        assert "--references NAME" in err
        code, _, err = run("calibrate", *given, "--references", "gold_answer")
        assert (code, err) == (0, "")

    def test_no_word_where_there_is_no_other_column(self, run: Run, folder: Path) -> None:
        given = ("bare.jsonl", "--out", "log.jsonl", *MODELS, "--prices", "prices.json")
        assert run("calibrate", *given, "--dry-run")[2] == ""


class TestAsk:
    def test_what_calibrate_took(self, run: Run, folder: Path, server: OpenAIServer) -> None:
        (folder / "prompt.txt").write_text("FI {context} | {history} | {question}")
        (folder / "ships.txt").write_text("Ship 2 was built in Turku.")
        given = ("--prompt", "prompt.txt", "--context", "ships.txt", *MODELS)
        code, out, _ = run(
            "ask", "Where was ship 2 built?", "--prices", "prices.json", "--check", "agreement",
            "--samples", 3, *given, "--json",
        )  # fmt: skip
        assert code == 0
        record = json.loads(out)["automix"]
        assert record["cost"].endswith(" USD")
        assert len(record["verdicts"]) == 3
        assert {body["messages"][-1]["content"] for body in server.requests} == {
            "FI Ship 2 was built in Turku. |  | Where was ship 2 built?"
        }
        assert not any(map(is_check, server.requests)), "agreement asks the same again"

    def test_a_model_in_the_middle(self, run: Run, folder: Path, server: OpenAIServer) -> None:
        given = ("--middle", "openai:middle", "--check", "few-shot", *MODELS)
        code, out, _ = run("ask", "Where was ship 3 built?", *given, "--json")
        assert code == 0
        asked = {body["model"] for body in server.requests}
        assert "middle" in asked
        assert json.loads(out)["automix"]["model"] in {"middle", "large"}

    @pytest.mark.parametrize(
        ("prompt", "said"),
        [
            ("Answer.", "has no {question} in it"),
            ("{question} {topic}", "has {topic} in it, for which there is no value here"),
            ("{question}", "has no {context} in it, so the models would not see the context"),
        ],
    )
    def test_a_prompt_that_cannot_be_filled(
        self, run: Run, folder: Path, prompt: str, said: str
    ) -> None:
        (folder / "prompt.txt").write_text(prompt)
        (folder / "ships.txt").write_text("Ship 2 was built in Turku.")
        given = ("--prompt", "prompt.txt", "--context", "ships.txt", *MODELS)
        code, out, err = run("ask", "Where?", *given)
        assert (code, out) == (2, "")
        assert said in err

    def test_a_policy_of_other_models(self, run: Run, folder: Path, server: OpenAIServer) -> None:
        path = policy(folder, models=("gpt-5.4-mini", "gpt-5.5"))
        code, _, err = run("ask", "Where?", "--policy", path)
        assert code == 2
        assert "fitted to gpt-5.4-mini, gpt-5.5: give these models" in err
        assert "--small gpt-5.4-mini --large gpt-5.5" in err
        code, _, err = run("ask", "Where?", "--policy", path, *MODELS)
        assert code == 2
        assert "was fitted to the models gpt-5.4-mini, gpt-5.5, but is given small, large." in err
        assert not server.requests
        assert run("ask", "Where was ship 2?", "--policy", path, *MODELS, "--other-models")[0] == 0

    def test_the_policys_check(self, run: Run, folder: Path, server: OpenAIServer) -> None:
        both = CombinedVerifier(checks={"a": AgreementVerifier(samples=2), "s": SelfVerifier()})
        path = policy(folder, both)
        code, out, err = run("ask", "Where was ship 2?", "--policy", path, *MODELS, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["answer"] == "Turku"

    def test_a_check_that_is_code_of_the_users(self, run: Run, folder: Path) -> None:
        path = policy(folder, FunctionVerifier(function=bool))
        code, _, err = run("ask", "Where?", "--policy", path, *MODELS)
        assert code == 2
        assert "cannot be rebuilt from a file: your own check bool. Give a check that has" in err
        code, _, err = run("ask", "Where?", "--policy", path, *MODELS, "--check", "few-shot")
        assert code == 0
        assert "automix: warning: The policy was fitted to another check" in err
        assert "your own check bool" in err
        assert "8 verdicts by small at t = 1 (few-shot)" in err

    def test_an_unknown_check(self, run: Run, folder: Path) -> None:
        code, _, err = run("ask", "Where?", *MODELS, "--check", "agreemnt")
        assert code == 2
        assert "There is no check 'agreemnt'. Did you mean 'agreement'?" in err


def test_show_and_fit_name_models_and_check(run: Run, folder: Path) -> None:
    path = policy(folder, models=("gpt-5.4-mini", "gpt-5.5"))
    out = run("show", path)[1]
    assert "Models: gpt-5.4-mini, gpt-5.5." in out
    assert "Check: agreement of 3 answers by gpt-5.4-mini at t = 1." in out
    world(60).write(folder / "log.jsonl")
    assert "Models: small, large." in run("fit", "log.jsonl", "--out", "fitted.json")[1]


class TestPrices:
    def test_a_misspelt_model_in_the_table(self, run: Run, folder: Path) -> None:
        prices = json.loads((folder / "prices.json").read_text())
        prices["smal"] = prices.pop("small")
        (folder / "prices.json").write_text(json.dumps(prices))
        code, _, err = run("calibrate", "examples.jsonl", "--out", "log.jsonl", *MODELS, *PRICED)
        assert code == 2
        assert "The price of small is not known. Did you mean 'smal'?" in err

    def test_a_misspelt_model_of_the_list(self, run: Run, folder: Path) -> None:
        pytest.importorskip("genai_prices")
        models = ("--small", "openai:gpt5-nano", "--large", "openai:gpt-5")
        code, _, err = run("calibrate", "examples.jsonl", "--out", "log.jsonl", *models, "--yes")
        assert code == 2
        assert "The price of gpt5-nano is not known. Did you mean 'gpt-5-nano'" in err


class TestFewExamples:
    def test_how_many_are_missing(self, run: Run, folder: Path, server: OpenAIServer) -> None:
        write(folder / "many.jsonl", 60, answer="Turku")
        usual = server.script

        def mostly_failing(body: Any) -> Any:
            number = int(str(body["messages"]).rpartition("ship ")[2].split()[0])
            return 400 if number >= 20 else usual(body)

        server.script = mostly_failing
        given = ("many.jsonl", "--out", "log.jsonl", *MODELS, *PRICED, "--check", "few-shot")
        code, out, _ = run("calibrate", *given)
        assert code == 0
        said = f"needs about {FEW} complete examples, and the log has 20: {FEW - 20} more."
        assert said in flat(out)
        assert "automix fit log.jsonl" in out

    def test_all_that_there_are(self, run: Run, folder: Path) -> None:
        given = ("examples.jsonl", "--out", "log.jsonl", *MODELS, *PRICED)
        out = run("calibrate", *given)[1]
        assert "Next: automix fit log.jsonl" in out
        assert "more" not in out.partition("Next:")[2]


class TestRoads:
    def test_a_hint_names_where_the_package_is(self) -> None:
        hint = install.install_hint("redis")
        assert hint.startswith("pip install 'langchain-automix[redis] @ file:///")

    def test_every_hint_is_this_one(self) -> None:
        root = Path(install.__file__).parents[1]
        found = [
            path.name
            for path in root.rglob("*.py")
            if "langchain-automix[" in path.read_text(encoding="utf-8")
        ]
        assert found == ["install.py"]
