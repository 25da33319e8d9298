"""What `dumpd` writes of this package, and how `load` reads it, also from earlier versions."""

from __future__ import annotations

import contextlib

from langchain_automix.utils.identifiers import OLD_IDS, PACKAGE


class PackageSerializable:
    """Mixin of what can be saved: its id is the package and the class, wherever the class stands.

    A class of another package that derives from one of these keeps the id that LangChain gives
    it, by its module, for it is found there only.
    """

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: it can be saved."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return what stands before the name of the class in its id."""
        namespace = cls.__module__.split(".")
        return [PACKAGE] if namespace[0] == PACKAGE else namespace


def _register_old_ids() -> None:
    """Tell LangChain the ids of before, so that `load` opens them without being told.

    Only its own table reaches the list of what is allowed: a module that is still found by its
    old path would not do. Should the table go, `additional_import_mappings=OLD_IDS` does the same.
    """
    with contextlib.suppress(ImportError):
        from langchain_core.load.load import ALL_SERIALIZABLE_MAPPINGS  # noqa: PLC0415

        ALL_SERIALIZABLE_MAPPINGS.update(OLD_IDS)


_register_old_ids()
