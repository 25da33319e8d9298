"""The pictures of the site and the README, each made anew: `python -m docs.tooling.pictures`.

Every picture shows real output: of the recorded run of two real models that the package brings, or
of the diagrams in the pages. Needs Chromium, Pillow (the extra `plots` brings it) and, for the
diagrams, npm, which fetches Mermaid.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.messages import convert_to_openai_messages
from PIL import Image

from docs.tooling.diagrams import PICTURES, diagrams
from langchain_automix import ChatAutoMix, POMDPRouter, Report, SelfVerifier
from langchain_automix.local.demo.checks import AGREEMENT
from langchain_automix.local.demo.questions import SHIPPED, in_order, read_questions
from langchain_automix.local.demo.run import PROMPT, Demo, fit_part, routing_log
from langchain_automix.local.models import open_recorded, replayed_pair
from langchain_automix.local.recording import Recording
from langchain_automix.mix.runnable import AutoMixRunnable
from tests.support.servers.chromium import chromium
from tests.support.servers.chromium_tab import tab
from tests.support.servers.serving import served

if TYPE_CHECKING:
    from langchain_core.tracers.schemas import Run

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "cookbook" / "recordings" / "07_read_a_decision.json.gz"
MERMAID = "mermaid@11"
PRICE_RATIO = 25.0
COLOURS = 128
LARGEST = 150_000
"""Bytes that a picture may have."""

_FRAME = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; background: #10151d; color: #d7dde6; padding: 14px 18px; }}
pre {{ font: 13px/1.45 "DejaVu Sans Mono", monospace; margin: 0; white-space: pre; }}
b {{ color: #fff; }} i {{ color: #8a97a8; font-style: normal; }}
u {{ color: #7fd1a0; text-decoration: none; }}
</style><pre>{}</pre>"""
_DRAW = """<!doctype html><meta charset="utf-8"><body><script src="package/dist/mermaid.min.js">
</script><script type="module">
mermaid.initialize({{startOnLoad: false, theme: "neutral", htmlLabels: false,
  flowchart: {{htmlLabels: false}}, fontFamily: "DejaVu Sans, Arial, sans-serif"}});
const drawn = await mermaid.render("diagram", {});
document.body.innerHTML = drawn.svg;
</script>"""


def report() -> None:
    """Draw the head of a report: a policy of the demo's first third, judged on its other 268."""
    demo = Demo(replayed_pair(Recording.read()))
    asked = in_order(read_questions(SHIPPED), seed=7)
    rows = list(demo.measure(asked))
    third, check = fit_part(asked), demo.checks[AGREEMENT]
    seen, new = (
        routing_log(part, demo.names, PRICE_RATIO, check=AGREEMENT, verifier=check)
        for part in (rows[:third], rows[third:])
    )
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        Report.of(POMDPRouter.fit(seen, verifier=check), new).write(page)
        screenshot(page, "report", width=1100, height=1380)


def trace() -> None:
    """Draw the tree of a query that escalated, as LangChain's own tracer holds it."""
    from langchain_core.tracers.run_collector import RunCollectorCallbackHandler  # noqa: PLC0415

    collector = RunCollectorCallbackHandler()
    questions = read_questions(RECORDED.parents[1] / "questions.jsonl")
    [asked] = [each for each in questions if each.id == "volcanoes-5"]
    with open_recorded(RECORDED) as pair:
        mix = AutoMixRunnable(
            models=[pair.small.chat, pair.large.chat],
            verifier=SelfVerifier(samples=4, sampling="parallel"),
            router=POMDPRouter(),
            prompt=PROMPT,
            prices={
                pair.small.name: {"input": 0.05, "output": 0.20},
                pair.large.name: {"input": 1.00, "output": 4.00},
            },
        )
        message = mix.invoke(
            {"context": asked.context, "question": asked.question}, {"callbacks": [collector]}
        )
    record = message.response_metadata["automix"]
    [root] = collector.traced_runs
    tree = "\n".join(_tree(root))
    why = textwrap.fill(record["why"], 84, subsequent_indent="     ")
    facts = f"cost {record['cost']}   kept {record['model']}\nwhy  {why}"
    drawn(f"<b>{html.escape(asked.question)}</b>\n\n{tree}\n\n{html.escape(facts)}", "trace")


def live() -> None:
    """Draw the live page of a server, as the recorded models answer the demo's questions by it.

    Times on it are those of the recording being read.
    """
    demo = Demo(replayed_pair(Recording.read()))
    asked = in_order(read_questions(SHIPPED), seed=7)
    third, check = fit_part(asked), demo.checks[AGREEMENT]
    seen = routing_log(
        list(demo.measure(asked[:third])),
        demo.names,
        PRICE_RATIO,
        check=AGREEMENT,
        verifier=check,
    )
    pair = demo.pair
    mix = ChatAutoMix(
        models=[pair.small.chat, pair.large.chat],
        verifier=check,
        router=POMDPRouter.fit(seen, verifier=check),
        prices={
            pair.small.name: {"input": 0.05, "output": 0.20},
            pair.large.name: {"input": 0.05 * PRICE_RATIO, "output": 0.20 * PRICE_RATIO},
        },
    )
    with served({"support": mix}) as running, running.client() as client, tab() as page:
        page.resize(1100, 1180)
        page.ask("Emulation.setScrollbarsHidden", hidden=True)
        page.open(f"{running.root_url}/")
        for question in asked[third:]:
            request = PROMPT.format_messages(**question.model_dump())
            body = {"model": "support", "messages": convert_to_openai_messages(request)}
            client.post("/v1/chat/completions", json=body).raise_for_status()
        shown = f"{len(asked) - third} queries"
        page.until(f"document.getElementById('detail').innerText.includes('{shown}')")
        save(page.picture(), "live")


def _tree(run: Run, depth: int = 0, above: tuple[str, ...] = ()) -> Iterator[str]:
    read, written = _tokens(run)
    spent = f"{read:5} + {written:3} tokens" if read else ""
    tags = [tag for tag in run.tags or () if tag not in above and tag[:4] != "seq:"]
    name = f"{'  ' * depth}{run.name}"
    yield f"<u>{name:<26}</u>{spent:<22}<i>{' '.join('#' + tag for tag in tags)}</i>".rstrip()
    for child in sorted(run.child_runs, key=lambda each: each.start_time):
        yield from _tree(child, depth + 1, (*above, *(run.tags or ())))


def _tokens(run: Run) -> tuple[int, int]:
    """Return input and output tokens of a run and all beneath it."""
    if run.run_type == "llm":
        outputs: Any = run.outputs
        usage = outputs["generations"][0][0]["message"]["kwargs"]["usage_metadata"]
        return usage["input_tokens"], usage["output_tokens"]
    below = [_tokens(child) for child in run.child_runs]
    return sum(each[0] for each in below), sum(each[1] for each in below)


def terminal() -> None:
    """Draw what `automix demo --replay` prints at its end."""
    command = [str(Path(sys.executable).with_name("automix")), "demo", "--replay"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    lines = done.stdout.splitlines()
    *_, cut = (i for i, line in enumerate(lines) if "more, which --json" in line)
    shown = "\n".join(line.rstrip() for line in lines[cut + 1 :])
    drawn(f"<i>$</i> <b>automix demo --replay</b>\n<i>...</i>\n{html.escape(shown)}", "terminal")


def diagrams_drawn() -> None:
    """Draw every diagram of the pages by Mermaid."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", MERMAID], cwd=folder, check=True)
        [package] = Path(folder).glob("mermaid-*.tgz")
        subprocess.run(["tar", "xzf", package.name], cwd=folder, check=True)
        for diagram in diagrams():
            page = Path(folder, "page.html")
            page.write_text(_DRAW.format(json.dumps(diagram.text)), "utf-8")
            flags = ["--allow-file-access-from-files", "--virtual-time-budget=20000", "--dump-dom"]
            dom = _chromium(page, *flags)
            found = re.search(r"<svg.*</svg>", dom, re.DOTALL)
            if found is None or "Syntax error" in found[0]:
                raise SystemExit(f"Mermaid cannot draw {diagram.name}.")
            text = re.sub(r"(\d\.\d)\d+", r"\1", found[0].replace("<br>", "<br/>"))
            diagram.path.write_text(f"{text}\n{diagram.mark}\n", "utf-8")


def drawn(text: str, name: str) -> None:
    """Write text with a little markup as a picture of a terminal."""
    lines = re.sub(r"<[^>]+>", "", text).splitlines()
    width = 40 + 8 * max(len(line) for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "page.html")
        page.write_text(_FRAME.format(text), "utf-8")
        screenshot(page, name, width=width, height=30 + 19 * len(lines))


def screenshot(page: Path, name: str, *, width: int, height: int) -> None:
    """Keep a picture of a page."""
    shot = page.with_suffix(".png")
    _chromium(page, f"--screenshot={shot}", f"--window-size={width},{height}", "--hide-scrollbars")
    save(shot.read_bytes(), name)


def save(picture: bytes, name: str) -> None:
    """Keep a picture in few colours, so that it is small."""
    small = io.BytesIO()
    image = Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS)
    image.save(small, "PNG", optimize=True)
    if small.tell() > LARGEST:
        raise SystemExit(f"{name}.png has {small.tell():,} bytes, more than {LARGEST:,}.")
    (PICTURES / f"{name}.png").write_bytes(small.getvalue())


def _chromium(page: Path, *flags: str) -> str:
    program = chromium()
    if program is None:
        raise SystemExit("Pictures need Chromium (apt-get install chromium).")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    profile = f"--user-data-dir={page.parent / 'profile'}"
    command = [program, *quiet, profile, *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


PICTURES_BY_NAME: dict[str, Callable[[], None]] = {
    "report": report,
    "live": live,
    "trace": trace,
    "terminal": terminal,
    "diagrams": diagrams_drawn,
}


def main() -> None:
    """Draw the pictures that are named, or all."""
    parser = argparse.ArgumentParser(description="Draw the pictures that are named, or all.")
    parser.add_argument("names", nargs="*", choices=PICTURES_BY_NAME, metavar="NAME")
    for name in parser.parse_args().names or PICTURES_BY_NAME:
        PICTURES_BY_NAME[name]()
        sys.stdout.write(f"{name} is drawn.\n")


if __name__ == "__main__":
    main()
