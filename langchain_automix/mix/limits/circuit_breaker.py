"""`CircuitBreaker`: skip a model that keeps failing, and try it again after a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from langchain_core.runnables import Runnable

from langchain_automix.errors import AutoMixError, CircuitOpenError, DeadlineError
from langchain_automix.flow.steps import Steps
from langchain_automix.models.failures import is_model_failure
from langchain_automix.models.identity import server_key
from langchain_automix.utils.identifiers import registered_name
from langchain_automix.utils.locks import ProcessLock

T = TypeVar("T")
State = Literal["closed", "open", "half-open"]


@dataclass
class _Circuit:
    failures: int = 0  # consecutive
    opened: float | None = None  # time; None if closed
    tried: float | None = None  # start of the trial call in progress, if any


@registered_name("langchain_automix.breaker.CircuitBreaker")
class CircuitBreaker:
    """Skips a model that has failed several times in a row, until it answers again.

    After `failures` consecutive failures, a model's circuit opens: the mix continues as if the
    model had failed, without asking it. After `cool_down` seconds, one query tries the model. An
    answer closes the circuit; a failure opens it for as long again.

    A failure is anything that points to the model's health: no connection, a time-out, a status
    such as 429 or 500, a body without an answer (including an error that a gateway reports with
    status 200), a truncated stream, a deadline (`max_latency`) that left the call at least half of
    its time, or a nested mix that got no answer. A faulty request (a context that is too long,
    rejected input) or a spend limit does not count.

    The state is stored in this object, by model and server. Mixes that are given the same breaker
    share it, as do all threads and event loops. It needs no thread and no timer.

    ??? example "Three failures, then a minute's rest"

        ```python
        from langchain_automix import AutoMixRunnable, CircuitBreaker

        breaker = CircuitBreaker(failures=3, cool_down=60)
        mix = AutoMixRunnable.from_models(small, large, circuit_breaker=breaker)
        ```
    """

    def __init__(
        self,
        failures: int = 5,
        cool_down: float = 30.0,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with all circuits closed.

        Args:
            failures: Consecutive failures that open a circuit; 1 or more.
            cool_down: Seconds until the model is tried again; more than 0.
            clock: Returns the time in seconds.

        Raises:
            AutoMixError: `failures` or `cool_down` is out of range.
        """
        if failures < 1 or not 0 < cool_down < float("inf"):
            raise AutoMixError(
                f"CircuitBreaker(failures={failures}, cool_down={cool_down}): a circuit opens "
                "after 1 failure or more, for more than 0 seconds."
            )
        self.failures = failures
        self.cool_down = cool_down
        self._clock = clock
        self._circuits: dict[Hashable, _Circuit] = {}
        self._lock = ProcessLock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # copies of a mix share it

    def __getstate__(self) -> dict[str, Any]:
        # The state depends on this process's clock, and means little elsewhere.
        return {**self.__dict__, "_circuits": {}}

    def __repr__(self) -> str:
        return f"CircuitBreaker(failures={self.failures}, cool_down={self.cool_down})"

    def state(self, model: Runnable[Any, Any] | Hashable) -> State:
        """Return the state of a model's circuit.

        Args:
            model: A chat model, or its key.

        Returns:
            `closed`: the model is asked. `open`: it is skipped. `half-open`: one query tries it.
        """
        with self._lock:
            return self._state(self._circuits.get(key_of(model), _Circuit()))

    def admits(self, model: Runnable[Any, Any] | Hashable) -> bool:
        """Return whether a model may be asked now; if half-open, this starts the trial.

        The caller must report the outcome with `succeeded`, `failed` or `gave_up`.
        """
        with self._lock:
            circuit = self._circuits.get(key_of(model))
            if circuit is None or circuit.opened is None:
                return True
            if self._state(circuit) == "open":
                return False
            now = self._clock()
            # A trial whose outcome is never reported must not block the model for good.
            if circuit.tried is not None and now - circuit.tried < self.cool_down:
                return False
            circuit.tried = now
            return True

    def succeeded(self, model: Runnable[Any, Any] | Hashable) -> None:
        """Close the circuit of a model that has answered."""
        with self._lock:
            self._circuits.pop(key_of(model), None)

    def failed(
        self, model: Runnable[Any, Any] | Hashable, error: BaseException | None = None
    ) -> None:
        """Count a failure of a model, unless it is the request's own fault."""
        if error is not None and not is_model_failure(error):
            self.gave_up(model)
            return
        with self._lock:
            circuit = self._circuits.setdefault(key_of(model), _Circuit())
            circuit.failures += 1
            if circuit.tried is not None or circuit.failures >= self.failures:
                # A call already in progress when the circuit opened adds nothing to what opened it.
                if circuit.opened is None or circuit.tried is not None:
                    circuit.opened = self._clock()
                circuit.tried = None

    def gave_up(self, model: Runnable[Any, Any] | Hashable) -> None:
        """Ignore a call that says nothing about the model, such as a cancelled one."""
        with self._lock:
            if circuit := self._circuits.get(key_of(model)):
                circuit.tried = None

    def _state(self, circuit: _Circuit) -> State:
        if circuit.opened is None:
            return "closed"
        is_over = self._clock() - circuit.opened >= self.cool_down
        return "half-open" if is_over else "open"


def with_breaker(
    breaker: CircuitBreaker | None,
    model: Hashable,
    name: str,
    flow: Steps[T],
    *,
    hurried: bool = False,
) -> Steps[T]:
    """Ask a model through a flow, unless its circuit is open, and count the outcome.

    Args:
        breaker: Holds the circuits; None if there are none.
        model: The key of the model's circuit.
        name: The model's name.
        flow: Asks the model.
        hurried: Whether too little time is left for a missed deadline to say anything about the
            model.

    Raises:
        CircuitOpenError: The circuit is open.
    """
    if breaker is None:
        return (yield from flow)
    if not breaker.admits(model):
        raise CircuitOpenError(
            f"{name} was not asked: its circuit is open, after {breaker.failures} failures in a "
            f"row, for {breaker.cool_down:g} seconds at a time."
        )
    try:
        reply = yield from flow
    except Exception as error:
        note_failure(breaker, model, error, hurried=hurried)
        raise
    except BaseException:
        breaker.gave_up(model)
        raise
    breaker.succeeded(model)
    return reply


def note_failure(
    breaker: CircuitBreaker, model: Hashable, error: Exception, *, hurried: bool
) -> None:
    """Count a failure, unless it is a deadline that left the model too little time."""
    if hurried and isinstance(error, DeadlineError):
        breaker.gave_up(model)
    else:
        breaker.failed(model, error)


def key_of(model: Runnable[Any, Any] | Hashable) -> Hashable:
    """Return the key of a model's circuit: its name, its provider and its server."""
    if not isinstance(model, Runnable):
        return model
    return server_key(model) or id(model)
