"""Open the models that a command names, and close them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from langchain_automix.local.demo import view
from langchain_automix.local.models import Model, ModelOptions, ModelPair, open_models, open_pair

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def opened(wanted: ModelOptions, console: Console) -> Iterator[ModelPair]:
    """Open both models, with a progress bar while weights are fetched and verified."""
    with contextlib.ExitStack() as stack:
        with _fetching(console) as progress:
            pair = stack.enter_context(open_pair(wanted, progress))
        yield pair


@contextlib.contextmanager
def opened_models(wanted: ModelOptions, console: Console) -> Iterator[list[Model]]:
    """Open two models or more, as `opened` does."""
    with contextlib.ExitStack() as stack:
        with _fetching(console) as progress:
            models = stack.enter_context(open_models(wanted, progress))
        yield models


@contextlib.contextmanager
def _fetching(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    with view.downloads(console) as bars:
        bar = bars.add_task("starting", total=None)
        yield lambda what, done, total: bars.update(
            bar, description=what, completed=done, total=total
        )
