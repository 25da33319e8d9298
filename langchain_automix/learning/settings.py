"""The settings of a `Learning`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from langchain_automix.calibration.graders.custom import grader_name, to_grader
from langchain_automix.errors import AutoMixError
from langchain_automix.learning.budget import read_amount
from langchain_automix.learning.drift import load_detectors
from langchain_automix.learning.review_settings import ReviewSettings, check_numbers
from langchain_automix.models.prices import format_dollars
from langchain_automix.utils.urls import hide_password

Mode = Literal["mix", "observe"]
Promote = Literal["auto", "ask"]
OnDrift = Literal["shadow", "safe"]
Refit = Literal["thread", "never"]

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("mix", "observe"),
    "promote": ("auto", "ask"),
    "on_drift": ("shadow", "safe"),
    "refit": ("thread", "never"),
}


@dataclass(frozen=True)
class LearningSettings:
    """What `Learning` was told; each is documented there."""

    store: str
    max_loss: float
    cost_weight: float | None
    max_spend: Decimal | None
    quality: Any
    mode: Mode
    promote: Promote
    on_drift: OnDrift
    share: float
    warm_up_share: float
    keep_texts: bool
    keep_days: float | None
    keep_queries: int | None
    refit: Refit
    confidence: float
    seed: int

    @classmethod
    def read(cls, store: Any, max_spend: Any, **others: Any) -> LearningSettings:
        """Return the settings of what a user has given.

        Raises:
            AutoMixError: One of them is not possible; the message names it.
        """
        if not isinstance(store, str):
            raise AutoMixError(
                f"store is {type(store).__name__}, but must be a URL, such as "
                "'sqlite:///automix.db'."
            )
        settings = cls(store=store, max_spend=read_amount(max_spend), **others)
        settings._check()
        return settings

    def _check(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                options = " or ".join(map(repr, known))
                raise AutoMixError(f"{name} is {getattr(self, name)!r}, but must be {options}.")
        check_numbers(vars(self))
        if self.quality is not None:
            to_grader(self.quality)
        if self.refit == "thread":
            load_detectors()

    def for_reviews(self) -> ReviewSettings:
        """Return what reviews of the traffic go by; an observer leaves every step to a person."""
        return ReviewSettings(
            max_loss=self.max_loss if self.cost_weight is None else None,
            cost_weight=self.cost_weight,
            confidence=self.confidence,
            share=self.share,
            warm_up_share=self.warm_up_share,
            promote="ask" if self.mode == "observe" else self.promote,
            on_drift=self.on_drift,
            seed=self.seed,
        )

    def shown(self) -> dict[str, Any]:
        """Return them ready for JSON, without a password."""
        shown = dict(vars(self))
        quality = self.quality
        if quality is not None and not isinstance(quality, str):
            quality = grader_name(quality)
        return {
            **shown,
            "store": hide_password(self.store),
            "max_spend": format_dollars(self.max_spend),
            "quality": quality,
        }
