"""A store opened by its URL, where what that needs is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_automix.errors import AutoMixError
from langchain_automix.utils.install import install_hint

if TYPE_CHECKING:
    from langchain_automix.learning.store.store import LearningStore


def open_store(url: str, *, create: bool = True) -> LearningStore:
    """Open a store; see `LearningStore.open`.

    Raises:
        AutoMixError: It cannot be opened, or SQLAlchemy is not installed.
    """
    try:  # an extra
        import sqlalchemy  # noqa: F401, PLC0415
    except ImportError as error:
        raise AutoMixError(
            f"Learning needs SQLAlchemy, which is not installed: {install_hint('learning')}"
        ) from error
    from langchain_automix.learning.store.store import LearningStore  # noqa: PLC0415

    return LearningStore.open(url, create=create)
