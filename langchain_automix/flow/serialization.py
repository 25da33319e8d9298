"""Define what `dumpd` writes for this package, and how `load` reads it, earlier versions too."""

from __future__ import annotations

import contextlib

from langchain_automix.utils.identifiers import OLD_IDS, PACKAGE


class PackageSerializable:
    """Mixin for classes that can be saved under the id of the package and the class name.

    The id does not depend on the module. A class of another package that derives from one of these
    keeps the id that LangChain gives it, by its module, since it can only be found there.
    """

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """Return True: objects of this class can be saved."""
        return True

    @classmethod
    def get_lc_namespace(cls) -> list[str]:
        """Return the part of the id that precedes the class name."""
        namespace = cls.__module__.split(".")
        return [PACKAGE] if namespace[0] == PACKAGE else namespace


def _register_old_ids() -> None:
    """Register the ids of earlier versions with LangChain, so that `load` opens them unaided.

    Only LangChain's own table is consulted for what may be loaded, so keeping a module at its old
    path would not help. If the table is removed, `additional_import_mappings=OLD_IDS` does the
    same.
    """
    with contextlib.suppress(ImportError):
        from langchain_core.load.load import ALL_SERIALIZABLE_MAPPINGS  # noqa: PLC0415

        ALL_SERIALIZABLE_MAPPINGS.update(OLD_IDS)


_register_old_ids()
