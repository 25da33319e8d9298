"""A stretch of a test in which nothing may warn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_warnings() -> Iterator[None]:
    """Turn each warning into an error.

    Not a `ResourceWarning`: one comes whenever garbage is collected, of whichever test left it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ResourceWarning)
        yield
