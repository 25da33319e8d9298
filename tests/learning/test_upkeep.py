"""What is done beside the queries."""

from __future__ import annotations

import threading
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="SQLAlchemy is not installed (extra `learning`)")

from tests.support.builders.learning_mixes import Make, learns
from tests.support.servers.openai_server import OpenAIServer

_THREADS = 8


def test_an_epoch_begins_once(server: OpenAIServer, make: Make) -> None:
    """Even where several threads look at the store before it knows."""
    learning: Any = make(refit="never")
    automix = learns(server, learning)
    state = learning._upkeep.state(automix.mix_config)
    together = threading.Barrier(_THREADS)

    def look() -> None:
        together.wait()
        learning._upkeep.load(state)

    threads = [threading.Thread(target=look) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert learning.flush()
    events = learning.store.get().events(state.epoch)
    assert [event.kind for event in events] == ["epoch"]
