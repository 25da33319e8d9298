"""`automix demo` and `automix ask`, from their options to what they print."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_automix.cli.open_models import opened
from langchain_automix.errors import AutoMixError
from langchain_automix.local.demo import view
from langchain_automix.local.demo.questions import SHIPPED, Question, in_order, read_questions
from langchain_automix.local.demo.run import Demo, Row, fit_half, routing_log
from langchain_automix.local.demo.summary import summarize
from langchain_automix.local.models import ModelOptions, ModelPair, open_replay
from langchain_automix.local.recording import Recording

if TYPE_CHECKING:
    from rich.console import Console


_PROBES = 2
_FEWEST = 8
_KEPT_BACK = 0.92


@dataclass(frozen=True)
class DemoOptions:
    """Options of `automix demo`."""

    wanted: ModelOptions = field(default_factory=ModelOptions)
    data: Path = SHIPPED
    questions: int | None = None
    """None: as many as fit into `minutes`."""

    minutes: float = 9.0
    price_ratio: float | None = 17.0
    replay: bool = False
    log: Path | None = None
    record: Path | None = None


class DemoCommand:
    """One run of `automix demo`.

    Args:
        options: What was asked for.
        console: Where people read.
    """

    def __init__(self, options: DemoOptions, console: Console) -> None:
        self.options = options
        self.console = console
        self.interrupted = False
        self.seed = options.wanted.seed

    def run(self) -> dict[str, Any]:
        """Run the demo, show it, and return all its rows and figures, ready for JSON.

        Raises:
            AutoMixError: Something that was given cannot be used, or a model failed.
        """
        options = self.options
        for path in (options.log, options.record):
            if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
                raise AutoMixError(f"{path} cannot be written: it is, or lies in, no such folder.")
        if options.replay:
            return self._replay()
        questions = in_order(read_questions(options.data), options.wanted.seed)
        asked_for = self._asked_for(questions, options.data.name)
        with opened(options.wanted, self.console) as pair:
            self.console.print(
                f"[bold]AutoMix[/]: {pair.small.name} answers and checks itself, the router "
                f"decides, {pair.large.name} is asked only where that seems worth it.",
                highlight=False,
            )
            deadline = None
            if options.questions is None:
                deadline = time.perf_counter() + options.minutes * 60
            return self._show(pair, questions[:asked_for], options.wanted.samples, deadline)

    def _asked_for(self, questions: list[Question], where: str) -> int | None:
        count = self.options.questions
        if count is not None and count > len(questions):
            raise AutoMixError(
                f"--questions {count} are more than the {len(questions)} in {where}."
            )
        return count

    def _replay(self) -> dict[str, Any]:
        recording = Recording.read()
        about = recording.about
        self.console.print(
            "[bold]This is a replay[/]: recorded answers of "
            f"{about['small']} and {about['large']}, and the seconds that they took; no model "
            "runs now."
        )
        self.seed = about["seed"]
        questions = in_order(read_questions(), self.seed)[: about["questions"]]
        questions = questions[: self._asked_for(questions, "the recording")]
        with open_replay(recording) as pair:
            return self._show(pair, questions, about["samples"], deadline=None)

    def _show(
        self, pair: ModelPair, questions: list[Question], samples: int, deadline: float | None
    ) -> dict[str, Any]:
        demo = Demo(pair, samples=samples, price_ratio=self.options.price_ratio)
        try:
            if not pair.is_replay:
                questions = self._estimated(demo, questions, deadline)
            self._ask(demo, questions, deadline)
        except KeyboardInterrupt:
            self.interrupted = True
            self.console.print(f"Stopped after {len(demo.rows)} questions; what they showed:")
        except AutoMixError:
            self._finish(demo, pair)  # what was done is not lost
            raise
        return self._finish(demo, pair)

    def _estimated(
        self, demo: Demo, questions: list[Question], deadline: float | None
    ) -> list[Question]:
        """Measure this machine on the first questions, and choose how many more fit."""
        probes = min(_PROBES, len(questions) - 1)
        seconds: list[float] = []
        with self.console.status(f"Measuring this machine on {probes} questions"):
            try:
                demo.warm_up()
            except Exception as error:
                raise demo.pair.explain(error) from error
            start = time.perf_counter()
            for _ in itertools.islice(demo.run(questions), probes):
                seconds.append(time.perf_counter() - start - sum(seconds))
        passages = len({question.context for question in questions})
        # The first question of a passage is the slow one: the others find it in the cache.
        each = seconds[-1] + (seconds[0] - seconds[-1]) * passages / len(questions)
        count = len(questions)
        if deadline is not None:
            left = (deadline - time.perf_counter()) * _KEPT_BACK
            count = min(count, max(_FEWEST, probes + int(left / each)))
        self.console.print(
            f"{count} questions, about {each:.0f} seconds each: some "
            f"{each * (count - probes) / 60:.0f} minutes from now. Ctrl-C ends it early, with "
            "the summary."
        )
        return questions[:count]

    def _ask(self, demo: Demo, questions: list[Question], deadline: float | None) -> None:
        half = fit_half(questions)
        view.heading(self.console, "fit", half)
        for row in demo.rows:
            view.row(self.console, row)
        with view.questions(self.console) as progress:
            task = progress.add_task("questions", total=len(questions), completed=len(demo.rows))
            for row in demo.run(questions):
                if row.half == "report" and len(demo.rows) == half + 1:
                    view.heading(self.console, "report", len(questions) - half)
                view.row(self.console, row)
                progress.advance(task)
                if deadline is not None and time.perf_counter() > deadline:
                    self.console.print("The time is up; here is what was done.")
                    break

    def _finish(self, demo: Demo, pair: ModelPair) -> dict[str, Any]:
        options = self.options
        found = summarize(demo.rows, pair, options.price_ratio)
        if found is not None:
            view.summary(self.console, found, (pair.small.name, pair.large.name))
        about = {
            "small": pair.small.name,
            "large": pair.large.name,
            "seed": self.seed,
            "samples": demo.samples,
            "questions": len(demo.rows),
        }
        if options.log is not None and demo.rows:
            routing_log(demo.rows, pair, None).write(options.log)
        if options.record is not None and pair.recorder is not None:
            pair.recorder.recording(about).write(options.record)
        return {
            "about": {**about, "replay": pair.is_replay, "interrupted": self.interrupted},
            "rows": [as_dict(row) for row in demo.rows],
            "summary": None if found is None else found.as_dict(),
        }


def as_dict(row: Row) -> dict[str, Any]:
    """Return a row as JSON-ready values."""
    question = row.question

    def part(answered: Any) -> dict[str, Any]:
        return {
            "answer": answered.text,
            "correct": answered.correct,
            "seconds": round(answered.spent.seconds, 3),
            "tokens_in": answered.spent.tokens_in,
            "tokens_out": answered.spent.tokens_out,
        }

    return {
        "id": question.id,
        "kind": question.kind,
        "half": row.half,
        "question": question.question,
        "references": list(question.references),
        "small": part(row.small),
        "check": {
            "verdicts": list(row.check.verdicts),
            "confidence": row.check.confidence,
            "seconds": round(row.check_spent.seconds, 3),
            "tokens_in": row.check_spent.tokens_in,
            "tokens_out": row.check_spent.tokens_out,
        },
        "large": part(row.large),
        "automix": row.record,
        "final": {"answer": row.final.text, "correct": row.final.correct},
    }
