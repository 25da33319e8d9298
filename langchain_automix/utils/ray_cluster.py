"""Connect to a Ray cluster when it is needed, and map functions over many items on it."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import import_extra

A = TypeVar("A")
B = TypeVar("B")


def ray_module() -> Any:
    """Return the module `ray`.

    Raises:
        AutoMixError: Ray is not installed.
    """
    # Ray sends usage statistics to its makers unless this is set before it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return import_extra("ray", "ray")


def connect(address: str | None = None) -> Any:
    """Return the module `ray`, connected to a cluster.

    Args:
        address: Address of the cluster: `auto` for the one that runs on this machine, `local` to
            start one that ends with this process, or `ray://HOST:10001`. None: the address in
            `RAY_ADDRESS`, else a cluster that runs here, else a new one. Ignored if the process is
            connected already.

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
    """Return the number of CPUs of a cluster, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def map_on_ray(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Run a function on the cluster for each item, and yield the results in order.

    Only as many tasks run as keep all its CPUs busy, so that results do not pile up here.

    Raises:
        AutoMixError: The function raised it, or no worker could run the function.
    """

    def call(item: A) -> B:  # Ray does not accept a partial function
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
    """Return the value of a reference.

    Raises:
        AutoMixError: The task raised it, or its worker died.
        Exception: Any other error that the task raised.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise AutoMixError(f"The Ray cluster could not do it: {reason}.") from error


def is_ray_dataset(source: Any) -> bool:
    """Return whether an object is a Ray dataset; works without Ray installed."""
    kinds = type(source).__mro__
    return any(
        each.__module__.startswith("ray.data") and each.__name__ == "Dataset" for each in kinds
    )


def map_blocks(function: Callable[[Any], B], dataset: Any) -> Iterator[B]:
    """Run a function for each block of a dataset (an Arrow table); yield the results in order."""
    return map_on_ray(function, dataset.to_arrow_refs())
