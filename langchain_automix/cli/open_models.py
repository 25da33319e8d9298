"""Open the models that a verb names, with a progress bar for downloads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console

from langchain_automix.local.demo import view
from langchain_automix.local.models import Model, ModelOptions, ModelPair, open_models, open_pair


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


@contextlib.contextmanager
def _downloads(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    with view.downloads(console) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda what, done, total: bars.update(
            bar, description=what, completed=done, total=total
        )
