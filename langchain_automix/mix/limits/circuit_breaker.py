"""`CircuitBreaker`: leave a model alone that keeps failing, and try it again after a while."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

from langchain_core.runnables import Runnable

from langchain_automix.errors import (
    AutoMixError,
    CircuitOpenError,
    DeadlineError,
    ModelsFailedError,
    QueryFailedError,
    SpendLimitReachedError,
)
from langchain_automix.flow.steps import Steps
from langchain_automix.models.failures import is_fault
from langchain_automix.models.identity import identity
from langchain_automix.models.wrappers import chat_model_of
from langchain_automix.utils.identifiers import registered_name

T = TypeVar("T")
State = Literal["closed", "open", "half-open"]

# Client errors that say something of the model or its provider: it does not let us in, has not
# this model, is slow, or is asked too much. The others are the request's own.
_OF_THE_MODEL = frozenset({401, 402, 403, 404, 407, 408, 409, 421, 423, 424, 425, 429})
_CLIENT_ERRORS = range(400, 500)


@dataclass
class _Circuit:
    failures: int = 0
    """In a row."""

    opened: float | None = None
    """When it was opened; None: it is closed."""

    tried: float | None = None
    """When the trial call that is under way began; None: there is none."""


@registered_name("langchain_automix.breaker.CircuitBreaker")
class CircuitBreaker:
    """Passes over a model that has failed several times in a row, until it answers again.

    After `failures` failures in a row a model's circuit is open, and the mix goes on as if the
    model had failed, without asking it. After `cool_down` seconds one query tries it: an answer
    closes the circuit, a failure opens it for as long again.

    A failure is whatever says something of the model's health: no connection, a time-out, a status
    such as 429 or 500, a body that is no answer (also an error that a gateway reports with status
    200), a stream that is cut, a query's time that is up (`max_latency`), unless less than half of
    it was left for the call, and of a model that is a mix itself, that it got no answer. What is a
    request's own fault (a context too long, an input refused), or a spend limit's, is not counted.

    The state is in this object, by model and server: mixes that are given the same one share it,
    and so do all threads and event loops. It needs no thread and no timer.

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
            failures: Failures in a row after which a model is passed over; 1 or more.
            cool_down: Seconds until it is tried again; more than 0.
            clock: Gives the time in seconds.

        Raises:
            AutoMixError: A number is out of its range.
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
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: Any) -> Self:
        return self  # a copy of a mix shares what is known of its models

    def __repr__(self) -> str:
        return f"CircuitBreaker(failures={self.failures}, cool_down={self.cool_down})"

    def state(self, model: Runnable[Any, Any] | Hashable) -> State:
        """Return the state of a model's circuit.

        Args:
            model: A chat model, or what else stands for one.

        Returns:
            `closed`: it is asked. `open`: it is passed over. `half-open`: it is tried, or the next
            query tries it.
        """
        with self._lock:
            return self._state(self._circuits.get(key_of(model), _Circuit()))

    def admits(self, model: Runnable[Any, Any] | Hashable) -> bool:
        """Return whether a model may be asked now; where it is half-open, the caller tries it.

        Who asks it then says how that ended: `succeeded`, `failed` or `gave_up`.
        """
        with self._lock:
            circuit = self._circuits.get(key_of(model))
            if circuit is None or circuit.opened is None:
                return True
            if self._state(circuit) == "open":
                return False
            now = self._clock()
            # A trial that nobody tells the end of must not keep the model out for ever.
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
        """Count a failure of a model; one that is the request's own fault is none."""
        if error is not None and not is_model_failure(error):
            self.gave_up(model)
            return
        with self._lock:
            circuit = self._circuits.setdefault(key_of(model), _Circuit())
            circuit.failures += 1
            if circuit.tried is not None or circuit.failures >= self.failures:
                # What was under way when it opened says no more than what had failed before.
                if circuit.opened is None or circuit.tried is not None:
                    circuit.opened = self._clock()
                circuit.tried = None

    def gave_up(self, model: Runnable[Any, Any] | Hashable) -> None:
        """Forget a call that says nothing of the model, such as a cancelled one."""
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
    """Ask a model by a flow, unless its circuit is open, and note how that ended.

    Args:
        breaker: Knows the circuits.
        model: The key of its circuit.
        name: The model's name.
        flow: Asks it.
        hurried: Whether it has so little time that a deadline says nothing of it.

    Raises:
        CircuitOpenError: It is open.
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
    """Count a failure, unless it is that of a deadline which came too soon for the model."""
    if hurried and isinstance(error, DeadlineError):
        breaker.gave_up(model)
    else:
        breaker.failed(model, error)


def key_of(model: Runnable[Any, Any] | Hashable) -> Hashable:
    """Return what a model's circuit is known by: its name, its provider and its server."""
    if not isinstance(model, Runnable):
        return model
    name, provider = identity(model)
    if name is None:
        return id(model)
    chat_model = chat_model_of(model)
    places = ("base_url", "openai_api_base", "anthropic_api_url", "azure_endpoint", "endpoint_url")
    found = (getattr(chat_model, place, None) for place in places)
    return (name, provider, next((str(place) for place in found if place), None))


def is_model_failure(error: BaseException) -> bool:
    """Return whether an error says something of the health of the model that raised it."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int) and status in _CLIENT_ERRORS:
        return status in _OF_THE_MODEL
    # Without a status: the connection, a time that ran out, or a body that is no JSON; what is
    # wrong with an input before anything is sent is a ValueError or a TypeError.
    if isinstance(error, ModelsFailedError):
        return any(map(is_model_failure, error.exceptions))
    if isinstance(error, QueryFailedError):
        return not isinstance(error, SpendLimitReachedError)
    if isinstance(error, json.JSONDecodeError) or _is_no_answer(error):
        return True
    if not is_fault(error):  # an interrupt of a graph, say
        return False
    return not isinstance(error, ValueError | TypeError)


def _is_no_answer(error: BaseException) -> bool:
    """Whether it is what `langchain-openai` raises of a response that holds no answer."""
    if isinstance(error, TypeError):
        return "null value for 'choices'" in str(error)
    told = error.args[0] if isinstance(error, ValueError) and error.args else None
    if not isinstance(told, Mapping):  # the response's field `error`
        return False
    code = told.get("code")
    if isinstance(code, int) and code in _CLIENT_ERRORS:
        return code in _OF_THE_MODEL
    words = f"{code} {told.get('type')}"
    return not any(word in words for word in ("invalid", "context_length"))
