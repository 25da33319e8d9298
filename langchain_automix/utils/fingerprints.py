"""Names of what users give: the same in every process, and others after a change."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from typing import Any

from langchain_automix.utils.identifiers import PACKAGE, registered_path

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""An address in memory, as it stands in the `repr` of an object; another one in each process."""


def stable_name(what: Any) -> str:
    """Return a text that names a function or an object with its settings."""
    if isinstance(what, functools.partial):
        settings = [*what.args, *sorted(what.keywords.items())]
        return f"{stable_name(what.func)}({repr_hash(settings)})"
    if inspect.ismethod(what):
        return f"{stable_name(what.__self__)}.{_name_of_function(what.__func__)}"
    if inspect.isroutine(what) or isinstance(what, type):
        return _name_of_function(what)
    return _name_of_object(what)


def _name_of_function(function: Any) -> str:
    name = registered_path(f"{function.__module__}.{function.__qualname__}")
    code = getattr(function, "__code__", None)
    if code is None or str(function.__module__).partition(".")[0] == PACKAGE:
        return name
    # A function that was edited keeps its name; lambdas, and what one function makes with other
    # settings, all have one.
    inside = [_content(cell) for cell in function.__closure__ or ()]
    return f"{name}({repr_hash([code, inside, function.__defaults__, function.__kwdefaults__])})"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not yet set
        return None


def _name_of_object(what: Any) -> str:
    fingerprint = getattr(what, "fingerprint", None)
    if isinstance(fingerprint, str):
        return f"{type(what).__name__}({fingerprint})"
    inner = getattr(what, "func", None) or getattr(what, "afunc", None)
    if callable(inner):  # a RunnableLambda, or LangSmith's wrapper around a function
        return f"{type(what).__name__}({stable_name(inspect.unwrap(inner))})"
    return f"{stable_name(type(what))}({repr_hash([what])})"


def repr_hash(settings: list[Any]) -> str:
    """Return 16 hexadecimal digits that stand for settings."""
    shown = ADDRESS.sub("", _stable_repr(settings))
    return hashlib.sha256(shown.encode(errors="backslashreplace")).hexdigest()[:16]


def _stable_repr(value: Any) -> str:
    """Return the `repr` of a value, the same in every process: the order of a set is not."""
    if inspect.iscode(value):
        return _stable_repr([value.co_code, value.co_names, value.co_consts])
    if type(value) in (set, frozenset):
        return f"{{{', '.join(sorted(map(_stable_repr, value)))}}}"
    if type(value) in (list, tuple):
        return f"[{', '.join(map(_stable_repr, value))}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{_stable_repr(k)}: {_stable_repr(v)}' for k, v in value.items())}}}"
    return repr(value)


def uniform(query_id: str, seed: int) -> float:
    """Return a number in [0, 1) that depends on the id and the seed alone."""
    digest = hashlib.sha256(f"{seed}:{query_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
