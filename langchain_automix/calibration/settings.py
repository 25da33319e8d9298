"""`CalibrationSettings`: all arguments of `calibrate`, checked before anything is paid for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from langchain_core.runnables import Runnable

from langchain_automix.calibration.budget import Progress
from langchain_automix.calibration.config import Unit, Unlabelled
from langchain_automix.calibration.cost_estimate import Estimate
from langchain_automix.calibration.validation import validate_output
from langchain_automix.errors import AutoMixError
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.prices import PriceSource

Models = AutoMixRunnable | Sequence[Runnable[Any, Any] | str]
OnChange = Literal["raise", "rerun"]
Engine = Literal["ray"]
Approve = Callable[[Estimate], bool]
Listener = Callable[[Progress], None]


@dataclass(frozen=True)
class CalibrationSettings:
    """All arguments of `calibrate`; see there for their documentation.

    Raises:
        AutoMixError: A value is out of range, a goal cannot be used, or the log cannot be written.
    """

    examples: Any
    models: Models
    _: KW_ONLY
    quality: Any = "exact_match"
    out: str | Path = "calibration.jsonl"
    prompt: Runnable[Any, Any] | None = None
    verifier: Runnable[Any, Any] | None = None
    prices: PriceSource | None = None
    unit: Unit | None = None
    unlabelled: Unlabelled = "agreement"
    names: Mapping[str, str] | None = None
    concurrency: int | None = None
    max_spend: float | None = None
    adaptive: bool = False
    goal: Mapping[str, float] | None = None
    on_change: OnChange = "raise"
    approve: Approve | None = None
    on_progress: Listener | None = None
    seed: int = 0
    free_check: bool = True
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self._validate_choices()
        if self.max_spend is not None and not 0 < self.max_spend < math.inf:
            raise AutoMixError(
                f"max_spend must be a finite number above 0, not {self.max_spend!r}; None sets no "
                "limit."
            )
        if self.concurrency is not None and self.concurrency < 1:
            raise AutoMixError(f"concurrency must be 1 or more, not {self.concurrency!r}.")
        if self.goal:
            self._validate_goal(self.goal)
        validate_output(self.log_path)

    @property
    def log_path(self) -> Path:
        """Path of the log."""
        return Path(self.out)

    @property
    def shuffle_seed(self) -> int | None:
        """Seed for the order of the examples; None keeps the order, if the run cannot end early."""
        return self.seed if self.adaptive or self.max_spend is not None else None

    def _validate_choices(self) -> None:
        choices: Mapping[str, tuple[Any, ...]] = {
            "engine": (None, *get_args(Engine)),
            "on_change": get_args(OnChange),
            "unlabelled": get_args(Unlabelled),
            "unit": (None, *get_args(Unit)),
        }
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in allowed:
                raise AutoMixError(f"{name} must be one of {allowed}, not {value!r}.")

    def _validate_goal(self, goal: Mapping[str, float]) -> None:
        if not self.adaptive:
            raise AutoMixError(f"goal={goal} has an effect only with adaptive=True.")
        from langchain_automix.policy.fitting.goal import Goal  # noqa: PLC0415  (numpy)

        known = [field.name for field in fields(Goal)]
        if unknown := sorted(goal.keys() - set(Goal.names())):
            raise AutoMixError(f"goal: {unknown[0]!r} is unknown; use {', '.join(known)}.")
