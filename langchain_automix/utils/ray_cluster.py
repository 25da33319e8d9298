"""A Ray cluster: connected to when it is needed, and asked to do the same for many things."""

from __future__ import annotations

import importlib
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

A = TypeVar("A")
B = TypeVar("B")


def ray_module() -> Any:
    """Return the module `ray`.

    Raises:
        AutoMixError: It is not installed.
    """
    # Ray sends statistics about its use to its makers, unless it is told not to before it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise AutoMixError(
            f"This needs ray, which is not installed: {install_hint('ray')}"
        ) from error


def connect(address: str | None = None) -> Any:
    """Return the module `ray`, connected to a cluster.

    Args:
        address: Of the cluster: `auto` for the one that runs on this machine, `local` for one that
            is started here and ends with this process, or `ray://HOST:10001`. None: that of
            `RAY_ADDRESS`, else one that runs here, else one that is started. A process that is
            connected stays so.

    Raises:
        AutoMixError: Ray is not installed, or there is no such cluster.
    """
    ray = ray_module()
    if ray.is_initialized():
        return ray
    handler = signal.getsignal(signal.SIGTERM)
    more: dict[str, Any] = {} if address is None else {"address": address}
    if address == "local":
        more["include_dashboard"] = False
    try:
        ray.init(log_to_driver=False, logging_level="error", **more)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise AutoMixError(
            f"There is no Ray cluster at {address or 'the address of RAY_ADDRESS'}: {reason}. Give "
            "auto, local or ray://HOST:10001."
        ) from error
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)  # Ray's own exits at once
    return ray


def cluster_cpus(ray: Any) -> int:
    """Return how many CPUs a cluster has, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def map_on_ray(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield what a function returns for each item, in their order, carried out by the cluster.

    No more is under way than keeps all its CPUs busy, so that results do not pile up here.

    Raises:
        AutoMixError: The function raised it, or no worker could carry it out.
    """

    def call(item: A) -> B:  # Ray takes no partial function
        return function(item)

    ray = connect()
    remote = ray.remote(call)
    width = 2 * cluster_cpus(ray)
    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(remote.remote(item))
        if len(waiting) >= width:
            yield result_of(ray, waiting.popleft())
    while waiting:
        yield result_of(ray, waiting.popleft())


def result_of(ray: Any, reference: Any) -> Any:
    """Return the value that a reference stands for.

    Raises:
        AutoMixError: The task raised it, or its worker died.
        Exception: What else the task raised.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise AutoMixError(f"The Ray cluster could not do it: {reason}.") from error


def is_ray_dataset(source: Any) -> bool:
    """Whether something is a dataset of Ray; needs no Ray to tell."""
    kinds = type(source).__mro__
    return any(
        each.__module__.startswith("ray.data") and each.__name__ == "Dataset" for each in kinds
    )


def map_blocks(function: Callable[[Any], B], dataset: Any) -> Iterator[B]:
    """Yield what a function returns for each block of a dataset, an Arrow table, in their order."""
    return map_on_ray(function, dataset.to_arrow_refs())
