"""A Ray cluster of two workers on this machine, for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(name="ray_cluster", scope="session")
def ray_fixture() -> Iterator[None]:
    """Start it; skip where Ray is not installed."""
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")  # it must not phone home
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _node_ip_address="127.0.0.1",
        )
        yield
        ray.shutdown()
