"""`Learning`: a mix learns from its own traffic, and proves a policy before it goes by it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import wait
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4
from weakref import WeakValueDictionary

from langchain_core.messages import AIMessage
from typing_extensions import override

from langchain_automix.errors import AutoMixError, StoreUnavailableError
from langchain_automix.flow.deadline import start_work
from langchain_automix.learning.budget import ShadowBudget
from langchain_automix.learning.feedback import find_answered
from langchain_automix.learning.grading import AgreementGrader
from langchain_automix.learning.handle import HandleWriter, StoreHandle
from langchain_automix.learning.records import AGREEMENT, GradeRecord
from langchain_automix.learning.review_result import Review
from langchain_automix.learning.rows import EndedFacts, query_record
from langchain_automix.learning.settings import (
    LearningSettings,
    Mode,
    OnDrift,
    Promote,
    Refit,
)
from langchain_automix.learning.shadowing import ShadowJob, ShadowRunner
from langchain_automix.learning.status import LearningStatus, stored_facts
from langchain_automix.learning.tickets import LearningTicket, QueryIds
from langchain_automix.learning.unpriced import NO_PRICE, has_known_costs, has_prices
from langchain_automix.learning.upkeep import Upkeep
from langchain_automix.mix.config import MixConfig
from langchain_automix.mix.learner import EndedQuery, Learner, Ticket
from langchain_automix.models.prices import dollars_of

if TYPE_CHECKING:
    from langsmith import Client

    from langchain_automix.learning.langsmith import Synced
    from langchain_automix.report.timeline.report import TimelineReport

_FIRST_LOAD_SECONDS = 0.5
"""How long a mix that is made waits for its policy; the largest model answers until it is there."""


class Learning(Learner):
    """Learns from the queries of a mix, and decides by which policy each is answered.

    Until a policy is proven, every query gets the largest model's answer. Beside it, after the
    answer was given, the other models and their checks run as its *shadow*, on a share of the
    traffic and within a budget. Once a policy is proven to cost less at no more than `max_loss`,
    queries are decided by it; a small share still has shadows, which watch over it.

    One object may serve any number of mixes, threads and processes. What is learned belongs to an
    epoch: the models' names, the check, the prompt and the tools or schema.

    ??? example "A mix that learns"

        ```python
        from langchain_automix import AutoMixRunnable, Learning

        automix = AutoMixRunnable.from_models(
            small, large, learning=Learning("sqlite:///automix.db", max_spend="5 USD")
        )
        message = automix.invoke("Who built it?")
        automix.learning.feedback(message, 1.0)
        print(automix.learning.status())
        ```
    """

    def __init__(
        self,
        store: str,
        *,
        max_loss: float = 0.01,
        cost_weight: float | None = None,
        max_spend: Any = "5 USD",
        quality: Any = None,
        mode: Mode = "mix",
        promote: Promote = "auto",
        on_drift: OnDrift = "shadow",
        share: float = 0.02,
        warm_up_share: float = 1.0,
        keep_texts: bool = False,
        keep_days: float | None = None,
        keep_queries: int | None = None,
        refit: Refit = "thread",
        confidence: float = 0.95,
        seed: int = 0,
    ) -> None:
        """Open the store.

        Args:
            store: Where what is learned is kept: `sqlite:///automix.db` (a file that only its
                owner may read), or `postgresql://user:password@host/database` for many processes
                and machines. Needs the extra `learning`. While it is away, queries go on.
            max_loss: Largest mean quality, in [0, 1], that a policy may lose against the largest
                model.
            cost_weight: How much quality one dollar is worth: the goal in place of `max_loss`. A
                policy is then better if it has more utility. None: `max_loss` is the goal.
            max_spend: US dollars that all shadows of the store may cost together, grades by models
                included; a number, or text such as `"5 USD"`. None: no limit.
            quality: What compares an answer with the largest model's, as `calibrate` takes it.
                None: the same text after normalisation, or the same JSON. Tool calls are compared
                as JSON.
            mode: `observe`: nothing that is learned changes an answer. `mix`: proven policies do.
            promote: `auto`: a proven policy decides at once. `ask`: when a person says so.
            on_drift: After an alarm: `shadow`, more shadows; `safe`, also the largest model, until
                a policy has proven itself anew.
            share: Chance that a query has a shadow once there is a policy.
            warm_up_share: Chance of it before, and in `observe`.
            keep_texts: Whether questions, contexts and answers are kept, too.
            keep_days: Age, in days, after which queries are deleted. None: never.
            keep_queries: Number of queries that are kept, the newest. None: all.
            refit: `thread`: this process fits policies beside its queries. `never`: others do, such
                as `automix learning fit`.
            confidence: How sure a promotion, or a way back, must be, in [0.5, 1).
            seed: Seed of chance.

        Raises:
            AutoMixError: A setting is not possible, or the store can never be opened.
        """
        self.settings = LearningSettings.read(
            store,
            max_spend,
            max_loss=max_loss,
            cost_weight=cost_weight,
            quality=quality,
            mode=mode,
            promote=promote,
            on_drift=on_drift,
            share=share,
            warm_up_share=warm_up_share,
            keep_texts=keep_texts,
            keep_days=keep_days,
            keep_queries=keep_queries,
            refit=refit,
            confidence=confidence,
            seed=seed,
        )
        self._key = uuid4().hex
        self._start()

    def _start(self) -> None:
        settings = self.settings
        _ALIVE[self._key] = self
        self.store = StoreHandle(settings.store)
        self.writer = HandleWriter(self.store)
        self._budget = ShadowBudget(self.store, settings.max_spend)
        self._grader = AgreementGrader(settings.quality)
        self._shadows = ShadowRunner(
            self.writer.put, self._budget, self._grader, keep_texts=settings.keep_texts
        )
        self._upkeep = Upkeep(settings, self.store, self.writer.put, self._budget)
        self._epochs = self._upkeep.epochs
        self.ids = QueryIds(settings.seed)

    def __repr__(self) -> str:
        shown = self.settings.shown()
        others = "".join(f", {name}={value!r}" for name, value in shown.items() if name != "store")
        return f"Learning({shown['store']!r}{others})"

    def __reduce__(self) -> Any:
        return _revive, (self._key, self.settings)

    # What a mix asks and tells

    @override
    def prepare(self, config: MixConfig) -> None:
        if config.epoch in self._epochs:
            return
        state = self._upkeep.state(config)
        done = start_work(lambda: self._upkeep.load(state))
        wait([done], _FIRST_LOAD_SECONDS)

    @override
    def begin(self, config: MixConfig, input: Any, arguments: Mapping[str, Any]) -> Ticket:
        state = self._epochs.get(config.epoch) or self._upkeep.state(config)
        self._upkeep.refresher.ensure()
        now = state.snapshot
        may_shadow = has_prices(config, state) and config.answer_format.may_shadow
        share = now.share if may_shadow else 0.0
        # A policy of two plans draws one by the id: the chance must have nothing to do with that.
        id, chance = self.ids.new()
        is_drawn = chance < share
        if not self._budget.has_room:
            self._shadows.refused += is_drawn
            share, is_drawn = 0.0, False
        return LearningTicket(self, config, state, now, id, share=share, is_drawn=is_drawn)

    def note(self, ticket: LearningTicket, ended: EndedQuery) -> None:
        """Take note of a query that has ended, without waiting."""
        query = ended.query
        if not query.is_admitted:  # nothing of it was begun
            return
        facts = EndedFacts.of(ticket.config, ended, keep_texts=self.settings.keep_texts)
        is_drawn = self._take_on(ticket, ended)
        which = ticket.id, ticket.version, ticket.stage
        self.writer.put_later(
            partial(query_record, *which, facts, share=ticket.share, is_drawn=is_drawn)
        )

    def _take_on(self, ticket: LearningTicket, ended: EndedQuery) -> bool:
        """Hand a query on for its shadow, or its grades; return whether it has a shadow."""
        query, names = ended.query, ended.config.names
        if ended.error is not None or query.record is None:
            return False
        claim = None
        if ticket.is_drawn and has_known_costs(ended, ticket.state):
            alone = query.record["alone"][names[-1]]["cost"]
            claim = self._shadows.claim(None if alone is None else float(dollars_of(alone)))
        if claim is None and not (self._grader.is_free and len(query.answers) == len(names)):
            return False
        job = ShadowJob(ticket.id, ticket.state, ticket.config, ended, claim)
        return self._shadows.submit(job) and claim is not None

    # What a user asks and tells

    def feedback(
        self,
        target: AIMessage | UUID | str,
        quality: float,
        *,
        source: str = "feedback",
        model: int | None = None,
    ) -> None:
        """Say how good an answer was: a thumb, a later check, an evaluator.

        Args:
            target: The message, the id of its run, or the id of the query in its record.
            quality: In [0, 1]; True and False are 1 and 0.
            source: Who says so. What one source says of an answer again takes the place of before.
            model: Index of the model whose answer is meant; None: the one that was given.

        Raises:
            AutoMixError: The quality is none, or there is no such query or no such answer.
            StoreUnavailableError: The query must be looked up, and the store is away.
        """
        if not isinstance(quality, int | float) or not 0 <= quality <= 1:
            raise AutoMixError(f"A quality lies in [0, 1], not at {quality!r}.")
        if source == AGREEMENT:
            raise AutoMixError(f"Grades from {source!r} are the mix's own: name another source.")
        answered = find_answered(target, self.store, self.writer)
        if (state := self._epochs.get(answered.epoch or "")) is not None:
            answered = answered._replace(models=len(state.names))
        model = answered.kept if model is None else model
        if model is None or not 0 <= model < answered.models:
            given = "no answer was given" if model is None else f"there is no model {model}"
            raise AutoMixError(f"To query {answered.id}, {given}.")
        self.writer.put(GradeRecord(answered.id, model, float(quality), source, time.time()))

    def status(self) -> LearningStatus:
        """Return how far it has come."""
        settings, shadows = self.settings, self._shadows
        here: dict[str, Any] = {
            "max_spend": settings.shown()["max_spend"],
            "dropped": self.writer.dropped + shadows.workers.dropped,
            "refused": shadows.refused,
            "waiting": self.writer.waiting,
        }
        try:
            store = self.store.get()
            epoch = next(reversed(self._epochs), None) or store.newest_epoch()
            here |= stored_facts(store, epoch)
        except StoreUnavailableError:
            return LearningStatus(self.store.name, None, is_away=True, **here)
        if (state := self._epochs.get(epoch or "")) is not None:
            now = state.snapshot
            here |= {"models": state.names, "stage": now.stage, "version": now.version}
            here |= {"share": now.share, "next_step": state.next_step}
            if state.config.unpriced:
                here |= {"share": 0.0, "next_step": state.no_cost or NO_PRICE}
        return LearningStatus(self.store.name, epoch, **here)

    def report(self) -> TimelineReport:
        """Return what the mix saves or would save, how sure that is, and how it went over time.

        Raises:
            AutoMixError: The store holds no query yet.
            StoreUnavailableError: The store is away.
        """
        from langchain_automix.learning.report import report_of  # noqa: PLC0415  (loads numpy)

        self.writer.flush()
        epoch = next(reversed(self._epochs), None)
        return report_of(self.store.get(), self.settings.for_reviews(), epoch)

    def sync_langsmith(
        self, project: str, key: str = "correctness", client: Client | None = None
    ) -> Synced:
        """Read LangSmith's feedback on the mix's runs, as grades of the answers that it gave.

        Args:
            project: Name of the tracing project.
            key: Key of the feedback whose score, in [0, 1], is the quality.
            client: LangSmith client. None: one from the environment.

        Raises:
            AutoMixError: The store holds no query yet, or LangSmith cannot be read.
            StoreUnavailableError: The store is away.
        """
        from langchain_automix.learning.langsmith import sync_langsmith  # noqa: PLC0415  (heavy)

        self.writer.flush()
        epoch = next(reversed(self._epochs), None)
        return sync_langsmith(self.store.get(), project, key, client, epoch)

    def review(self) -> Review | None:
        """Review the newest mix's traffic now: fit a policy, promote it, go back, as is due.

        With `refit="thread"` that is done without being asked for, while queries come; with
        `refit="never"` it is done here, or by another process.

        Returns:
            What was decided and done; None: there was no query yet, or another review is under way.

        Raises:
            StoreUnavailableError: The store is away.
        """
        state = next(reversed(list(self._epochs.values())), None)
        if state is None:
            return None
        self.writer.flush()
        return self._upkeep.review(state, self.store.get(), is_due=True)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until the shadows under way have ended, and all is in the store.

        Args:
            timeout: Seconds, at most.

        Returns:
            Whether all is.
        """
        deadline = time.monotonic() + timeout
        is_done = self._shadows.workers.wait(timeout)
        return self.writer.flush(max(0.0, deadline - time.monotonic())) and is_done

    def close(self, timeout: float = 10.0) -> bool:
        """Flush, and close the store; the next query opens it again.

        Args:
            timeout: Seconds, at most.

        Returns:
            Whether all is in the store.
        """
        is_flushed = self.flush(timeout)
        self._upkeep.refresher.stop()
        self.writer.close(0.0)
        self.store.close()
        return is_flushed

    def refresh(self) -> None:
        """Take the newest version of the store at once, instead of within two seconds."""
        self._upkeep.load_all()


_ALIVE: WeakValueDictionary[str, Learning] = WeakValueDictionary()
"""In this process: a copy that comes back from a pickle is the same object."""


def _revive(key: str, settings: LearningSettings) -> Learning:
    if (found := _ALIVE.get(key)) is not None:
        return found
    made = Learning.__new__(Learning)
    made.settings, made._key = settings, key  # noqa: SLF001  (of its own kind)
    made._start()  # noqa: SLF001
    return made
