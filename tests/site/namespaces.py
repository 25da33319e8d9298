"""What the code on the pages may take for granted.

A page shows what matters, and takes the rest as given. Given on every page are the chat models
`small`, `large` and `another`; `prompt`, `rag_prompt`, `retriever`, `questions`, `examples`,
`passage`, `automix` and `chain`; the tools `search`, `read_page` and `delete_page`; and the classes
`City` and `Ship`. Blocks of one page share their names, in their order. They run in a folder with
`log.jsonl`, `policy.json`, `questions.jsonl` and `page.txt`, against servers on 127.0.0.1 in place
of OpenAI, Ollama, LangSmith and whatever listens on the reader's machine.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from langchain_automix import AgreementVerifier, AutoMixRunnable, POMDPRouter, RoutingLog
from langchain_automix.utils.check_spec import spec_of
from tests.support.builders.langsmith_traces import grade, traced
from tests.support.builders.scripted_replies import ACCEPT, Body, call, is_check
from tests.support.builders.synthetic_logs import world
from tests.support.servers.langsmith_server import LangSmithServer

SMALL, LARGE = "gpt-5.4-mini", "gpt-5.5"
ADDRESSES = re.compile(r"http://(?:localhost|127\.0\.0\.1):(?:8000|8080|8081|4000)(?:/v1)?")
"""Where a page has a server of its reader's own."""


class City(BaseModel):
    """A city."""

    name: str
    country: str


class Ship(BaseModel):
    """A ship."""

    name: str
    year: int


@tool
def search(query: str) -> str:
    """Search the archive."""
    return f"The Halcyon belongs to a company in Turku ({query})."


@tool
def read_page(page: str) -> str:
    """Read a page of the archive."""
    return f"{page}: the Halcyon was built in Turku."


@tool
def delete_page(page: str) -> str:
    """Delete a page of the archive."""
    return f"{page} is deleted."


def script(body: Body) -> list[Any]:
    """Answer in a word, in the form that is asked for, or by one call of `search`."""
    replies = body.get("n") or 1
    if is_check(body):
        return [ACCEPT] * replies
    form = (body.get("response_format") or {}).get("json_schema")
    if form:
        return [json.dumps(_value(form["schema"]))] * replies
    asked = not any(message["role"] == "tool" for message in body["messages"])
    names = {each["function"]["name"] for each in body.get("tools") or ()}
    if asked and "search" in names:
        return [call("search", query="Halcyon")]
    return ["In Turku."] * replies


def _value(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = {"string": "Turku", "integer": 1931, "number": 1.0, "boolean": True}
    return {name: kinds[field["type"]] for name, field in schema["properties"].items()}


def given() -> dict[str, Any]:
    """Return the names that every page has."""
    small, large = ChatOpenAI(model=SMALL), ChatOpenAI(model=LARGE)
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    automix = AutoMixRunnable.from_models(small, large)
    return {
        "__name__": "page",
        "small": small,
        "large": large,
        "another": ChatOpenAI(model="another"),
        "prompt": prompt,
        "rag_prompt": ChatPromptTemplate.from_template("Use:\n{context}\n\nAnswer: {question}"),
        "retriever": RunnableLambda(lambda _: "[1] The Halcyon was built in Turku."),
        "questions": [f"Where was ship {i} built?" for i in range(4)],
        "examples": examples(24),
        "passage": "The Halcyon was built in Turku in 1931.",
        "automix": automix,
        "chain": prompt | automix | StrOutputParser(),
        "search": search,
        "read_page": read_page,
        "delete_page": delete_page,
        "City": City,
        "Ship": Ship,
    }


def examples(number: int) -> list[dict[str, Any]]:
    """Return questions, half of which the scripted models answer rightly."""
    answers = "In Turku.", "In Oslo."
    return [
        {"question": f"Where was ship {i} built?", "references": [answers[i % 2]]}
        for i in range(number)
    ]


def write_files(folder: Path) -> None:
    """Write what a reader has who has followed the quickstart."""
    check = spec_of(AgreementVerifier(samples=3))
    made_by = {"verifier": check.fingerprint, "check_spec": check.model_dump(mode="json")}
    records = list(world(60).records())
    for record in records:
        record["metadata"] = made_by
        for answer, name in zip(record["answers"], (SMALL, LARGE), strict=True):
            answer["model"] = name
    log = RoutingLog(records)
    log.write(folder / "log.jsonl")
    POMDPRouter.fit(log, cost_weight=0.03).save(folder / "policy.json")
    lines = (json.dumps(each) + "\n" for each in examples(24))
    (folder / "questions.jsonl").write_text("".join(lines))
    (folder / "page.txt").write_text("The Halcyon was built in Turku in 1931.")


def on_langsmith(ls: LangSmithServer, chain: Any) -> None:
    """Put a project of traced and graded runs, and a data set, on LangSmith."""
    asked = ({"question": f"Where was ship {number} built?"} for number in range(3))
    traced(ls, chain, *asked, project="my-project")
    for root in ls.roots:
        grade(ls, root, 1.0)
    dataset = ls.client.create_dataset("my-dataset")
    ls.client.create_examples(
        dataset_id=dataset.id,
        examples=[
            {"inputs": {"question": each["question"]}, "outputs": {"answer": each["references"][0]}}
            for each in examples(2)
        ],
    )
