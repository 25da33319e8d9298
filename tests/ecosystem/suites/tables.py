"""What the runs came to, in tables."""

from __future__ import annotations

from tests.ecosystem.suites.differences import KINDS, Difference, by_kind
from tests.ecosystem.suites.running import WAYS, Outcome


def say(line: str = "") -> None:
    """Print a line at once."""
    print(line, flush=True)  # noqa: T201


class Results:
    """What is known so far of all suites.

    Attributes:
        unexpected: What makes the whole fail, a sentence each.
        without_tests: Source distributions that hold no tests, as said of each.
    """

    def __init__(self) -> None:
        self.unexpected: list[str] = []
        self.without_tests: list[str] = []
        self._outcomes: dict[str, dict[str, Outcome]] = {}
        self._differences: dict[str, dict[str, list[Difference]]] = {}

    def add(self, suite: str, way: str, outcome: Outcome, seconds: float) -> None:
        """Keep and print what a run came to."""
        self._outcomes.setdefault(suite, {})[way] = outcome
        counted = "".join(f", {count} {what}" for what, count in outcome.counted.items())
        say(
            f"  {way}: {len(outcome.passed)} passed, {len(outcome.failed)} failed, "
            f"{len(outcome.skipped)} skipped{counted} ({seconds:.0f} s)"
        )
        if outcome.problem:
            self.unexpected.append(f"{suite}, {way}: {outcome.problem}")
        elif way != "bare" and not outcome.counted.get("mixes"):
            self.unexpected.append(f"{suite}, {way}: no mix was put in")
        elif not outcome.passed:
            self.unexpected.append(f"{suite}, {way}: no test passed")
        if way == "bare":
            for test, why in sorted(outcome.failed.items()):
                say(f"    fails without us: {test} ({_line(why)})")

    def add_differences(self, suite: str, way: str, found: list[Difference]) -> None:
        """Keep and print what fails in one way and not without a mix."""
        self._differences.setdefault(suite, {})[way] = found
        for kind, those in by_kind(found).items():
            for each in those:
                say(f"    {kind or 'UNEXPECTED'}: {each.test}{_because(each)}")
                if not kind:
                    self.unexpected.append(f"{suite}, {way}: {each.test}{_because(each)}")

    def print_tables(self) -> None:
        """Print the figures, the differences by kind, and what is unexpected."""
        if self._outcomes:
            self._print_figures()
        if any(found for ways in self._differences.values() for found in ways.values()):
            self._print_kinds()
        if self.without_tests:
            say(f"\nNot run: {'; '.join(self.without_tests)}.")
        if self.unexpected:
            say("\nUnexpected:")
            for each in self.unexpected:
                say(f"- {each}")
        else:
            say("\nNothing unexpected.")

    def _print_figures(self) -> None:
        say("\nPassed / failed (of these, not without a mix)\n")
        say(f"| suite | {' | '.join(WAYS)} |")
        say(f"| --- |{' --- |' * len(WAYS)}")
        for suite in self._outcomes:
            say(f"| {suite} | {' | '.join(self._figure(suite, way) for way in WAYS)} |")

    def _figure(self, suite: str, way: str) -> str:
        outcome = self._outcomes[suite].get(way)
        if outcome is None:
            return "-"
        cut = ", cut short" if outcome.problem else ""
        found = self._differences.get(suite, {}).get(way)
        new = "" if found is None else f" ({len(found)})"
        return f"{len(outcome.passed)} / {len(outcome.failed)}{new}{cut}"

    def _print_kinds(self) -> None:
        ways = [way for way in WAYS if way != "bare"]
        say("\nWhat fails with a mix and not without, by kind\n")
        say(f"| suite | a test that | {' | '.join(ways)} | for example |")
        say(f"| --- | --- |{' --- |' * len(ways)} --- |")
        for suite, by_way in self._differences.items():
            found = {way: by_kind(those) for way, those in by_way.items()}
            for kind in [*KINDS, ""]:
                those = [each for way in ways for each in found.get(way, {}).get(kind, ())]
                if not those:
                    continue
                counts = [
                    str(len(found[way].get(kind, ()))) if way in found else "-" for way in ways
                ]
                said = KINDS.get(kind, "UNEXPECTED: nobody looked into it yet")
                example = f"`{those[0].test.split('/')[-1]}`{_because(those[0])}"
                say(f"| {suite} | {said} | {' | '.join(counts)} | {example} |")


def _because(found: Difference) -> str:
    return f": {_line(found.why)}" if found.why else ""


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) < 160 else f"{line[:160]} ..."
