"""Serves one mix with a free check as a process of its own: `... PROVIDER [unfrozen]`.

It does what `automix serve` does once its models are open.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_automix import ChatAutoMix, LogProbabilityVerifier, ThresholdRouter
from langchain_automix.serve.app import create_app
from langchain_automix.serve.server import run_server

PRICES = {"small": {"input": 1.0, "output": 2.0}, "large": {"input": 10.0, "output": 20.0}}
LEAST = 0.5


def main(provider: str, *, frozen: bool, port: int = 0) -> None:
    """Serve until a signal."""
    given: dict[str, Any] = {"base_url": provider, "api_key": SecretStr("any")}
    models = [ChatOpenAI(model=name, stream_usage=True, **given) for name in ("small", "large")]
    mix = ChatAutoMix(
        models=models,
        verifier=LogProbabilityVerifier(statistic="min"),
        router=ThresholdRouter(threshold=LEAST),
        prices=PRICES,
    )

    def say(address: str) -> None:
        if not frozen:
            gc.unfreeze()
        print(address, flush=True)  # noqa: T201

    run_server(create_app({"mix": mix}), "127.0.0.1", port, say)


if __name__ == "__main__":
    main(sys.argv[1], frozen=sys.argv[2] == "frozen", port=int(sys.argv[3]))
