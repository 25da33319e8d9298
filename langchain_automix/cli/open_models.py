"""Open the models that a verb names, with a progress bar for downloads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from langchain_automix.errors import AutoMixError
from langchain_automix.local.demo import view
from langchain_automix.local.models import Model, ModelOptions, ModelPair, open_models, open_pair
from langchain_automix.policy.decision.policy import Policy


@contextlib.contextmanager
def opened_pair(options: ModelOptions, console: Console) -> Iterator[ModelPair]:
    """Open both models for the length of a `with` block."""
    with contextlib.ExitStack() as stack:
        with _downloads(console) as progress:
            pair = stack.enter_context(open_pair(options, progress))
        yield pair


@contextlib.contextmanager
def opened_models(options: ModelOptions, console: Console) -> Iterator[list[Model]]:
    """Open two models or more for the length of a `with` block."""
    with contextlib.ExitStack() as stack:
        with _downloads(console) as progress:
            models = stack.enter_context(open_models(options, progress))
        yield models


def refuse_default_models(path: Path, policy: Policy, options: ModelOptions) -> None:
    """Refuse to open the models of the demo for a policy of others, and name those.

    Raises:
        AutoMixError: The policy was fitted to other models.
    """
    if tuple(policy.models) != options.specs:
        small, *middle, large = policy.models
        given = " ".join(f"--middle {name}" for name in middle)
        raise AutoMixError(
            f"The policy {path} was fitted to {', '.join(policy.models)}: give these models, each "
            "as provider:model, a .gguf file or a local name, with "
            f"--small {small}{f' {given}' if given else ''} --large {large}. "
            "Without these options, the demo's models are used."
        )


@contextlib.contextmanager
def _downloads(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    with view.downloads(console) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda what, done, total: bars.update(
            bar, description=what, completed=done, total=total
        )
