"""One run of the demo: live or replayed, shown as it goes, with a summary."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from langchain_automix.cli.open_models import opened_pair
from langchain_automix.cli.options import DemoOptions
from langchain_automix.errors import AutoMixError
from langchain_automix.local.demo import view
from langchain_automix.local.demo.questions import SHIPPED, Question, in_order, read_questions
from langchain_automix.local.demo.run import Answered, Demo, Row, Spent, fit_half, routing_log
from langchain_automix.local.demo.summary import summarize
from langchain_automix.local.models import open_replay
from langchain_automix.local.recording import Recording

_PROBES = 2
"""Questions used to measure this machine."""

_FEWEST = 8
"""Questions that are asked however slow the machine is."""

_USABLE_SHARE = 0.92
"""Share of the remaining time that is planned for."""


def run_demo(options: DemoOptions, console: Console) -> dict[str, Any]:
    """Run the demo, show it, and return all its rows and figures, ready for JSON.

    Raises:
        AutoMixError: An option cannot be used, or a model failed.
    """
    price_ratio = _parse_price_ratio(options.price_ratio)
    for path in (options.log, options.record):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise AutoMixError(f"{path} cannot be written: give a file in a folder that exists.")
    if options.replay:
        return _replay(options, console, price_ratio)
    data = options.data or SHIPPED
    questions = in_order(read_questions(data), options.seed)
    questions = questions[: _validate_count(options.questions, questions, data.name)]
    model_options = replace(options.to_model_options(), record=options.record is not None)
    with opened_pair(model_options, console) as pair:
        console.print(
            f"[bold]AutoMix[/]: {pair.small.name} answers and checks itself, the router decides, "
            f"and {pair.large.name} is asked only where that seems worth it.",
            highlight=False,
        )
        demo = Demo(pair, samples=options.samples, price_ratio=price_ratio)
        deadline = None
        if options.questions is None:
            deadline = time.perf_counter() + options.minutes * 60
        return _Run(options, console, demo, options.seed, deadline).run(questions)


def _replay(options: DemoOptions, console: Console, price_ratio: float | None) -> dict[str, Any]:
    recording = Recording.read()
    about = recording.about
    console.print(
        f"[bold]This is a replay[/] of recorded answers by {about['small']} and {about['large']}, "
        "with the time that they took; no model runs now."
    )
    questions = in_order(read_questions(), about["seed"])[: about["questions"]]
    questions = questions[: _validate_count(options.questions, questions, "the recording")]
    with open_replay(recording) as pair:
        demo = Demo(pair, samples=about["samples"], price_ratio=price_ratio)
        return _Run(options, console, demo, about["seed"], deadline=None).run(questions)


def _parse_price_ratio(text: str) -> float | None:
    if text == "measured":
        return None
    try:
        ratio = float(text)
    except ValueError:
        ratio = math.nan
    if not 1 < ratio < math.inf:
        raise AutoMixError(f"--price-ratio is {text!r}; give a number above 1, or 'measured'.")
    return ratio


def _validate_count(count: int | None, questions: list[Question], where: str) -> int | None:
    if count is not None and count > len(questions):
        raise AutoMixError(f"--questions {count} is more than the {len(questions)} in {where}.")
    return count


@dataclass
class _Run:
    """A demo under way."""

    options: DemoOptions
    console: Console
    demo: Demo
    seed: int
    """Seed of the models and the questions."""

    deadline: float | None
    """When to stop, by `time.perf_counter`; None: after the last question."""

    is_interrupted: bool = False

    def run(self, questions: list[Question]) -> dict[str, Any]:
        """Ask the questions, and return what `run_demo` does."""
        try:
            if not self.demo.pair.is_replay:
                questions = self._affordable(questions)
            self._ask(questions)
        except KeyboardInterrupt:
            self.is_interrupted = True
            self.console.print(
                f"Stopped after {len(self.demo.rows)} questions; this is what they showed:"
            )
        except AutoMixError:
            self._finish()  # keep what was done
            raise
        return self._finish()

    def _affordable(self, questions: list[Question]) -> list[Question]:
        """Measure this machine on the first questions, and return those that fit the time."""
        probes = min(_PROBES, len(questions) - 1)
        seconds: list[float] = []
        with self.console.status(f"Measuring this machine on {probes} questions"):
            try:
                self.demo.warm_up()
            except Exception as error:
                raise self.demo.pair.explain(error) from error
            start = time.perf_counter()
            for _ in itertools.islice(self.demo.run(questions), probes):
                seconds.append(time.perf_counter() - start - sum(seconds))
        passages = len({question.context for question in questions})
        # The first question on a passage is slow: the others find the passage in the cache.
        each = seconds[-1] + (seconds[0] - seconds[-1]) * passages / len(questions)
        count = len(questions)
        if self.deadline is not None:
            left = (self.deadline - time.perf_counter()) * _USABLE_SHARE
            count = min(count, max(_FEWEST, probes + int(left / each)))
        self.console.print(
            f"{count} questions, about {each:.0f} seconds each: some "
            f"{each * (count - probes) / 60:.0f} minutes from now. Ctrl-C stops early, and shows "
            "the summary."
        )
        return questions[:count]

    def _ask(self, questions: list[Question]) -> None:
        demo, console, half = self.demo, self.console, fit_half(questions)
        view.heading(console, "fit", half)
        for row in demo.rows:
            view.row(console, row)
        with view.questions(console) as progress:
            task = progress.add_task("questions", total=len(questions), completed=len(demo.rows))
            for row in demo.run(questions):
                if row.half == "report" and len(demo.rows) == half + 1:
                    view.heading(console, "report", len(questions) - half)
                view.row(console, row)
                progress.advance(task)
                if self.deadline is not None and time.perf_counter() > self.deadline:
                    console.print("The time is up; this is what it showed.")
                    break

    def _finish(self) -> dict[str, Any]:
        demo, options = self.demo, self.options
        pair = demo.pair
        names = (pair.small.name, pair.large.name)
        summary = summarize(demo.rows, pair, demo.price_ratio)
        if summary is not None:
            view.summary(self.console, summary, names)
        about = {
            **dict(zip(("small", "large"), names, strict=True)),
            "seed": self.seed,
            "samples": demo.samples,
            "questions": len(demo.rows),
        }
        if options.log is not None and demo.rows:
            routing_log(demo.rows, pair, None).write(options.log)
        if options.record is not None and pair.recorder is not None:
            pair.recorder.recording(about).write(options.record)
        return {
            "about": {**about, "replay": pair.is_replay, "interrupted": self.is_interrupted},
            "rows": [_row_dict(row) for row in demo.rows],
            "summary": None if summary is None else summary.as_dict(),
        }


def _row_dict(row: Row) -> dict[str, Any]:
    question = row.question
    return {
        "id": question.id,
        "kind": question.kind,
        "half": row.half,
        "question": question.question,
        "references": list(question.references),
        "small": _answer_dict(row.small),
        "check": {
            "verdicts": list(row.check.verdicts),
            "confidence": row.check.confidence,
            **_spent_dict(row.check_spent),
        },
        "large": _answer_dict(row.large),
        "automix": row.record,
        "final": {"answer": row.final.text, "correct": row.final.correct},
    }


def _answer_dict(answered: Answered) -> dict[str, Any]:
    return {
        "answer": answered.text,
        "correct": answered.correct,
        **_spent_dict(answered.spent),
    }


def _spent_dict(spent: Spent) -> dict[str, Any]:
    return {
        "seconds": round(spent.seconds, 3),
        "tokens_in": spent.tokens_in,
        "tokens_out": spent.tokens_out,
    }
