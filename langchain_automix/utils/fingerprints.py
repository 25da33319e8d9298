"""Names and hashes of the user's objects: stable across processes, changed by every edit."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from typing import Any

from langchain_automix.utils.identifiers import PACKAGE, registered_path

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""A memory address in the `repr` of an object, which differs between processes."""


def stable_name(named: Any) -> str:
    """Return a name for a function, or for an object with its settings."""
    if isinstance(named, functools.partial):
        settings = [*named.args, *sorted(named.keywords.items())]
        return f"{stable_name(named.func)}({repr_hash(settings)})"
    if inspect.ismethod(named):
        return f"{stable_name(named.__self__)}.{_function_name(named.__func__)}"
    if inspect.isroutine(named) or isinstance(named, type):
        return _function_name(named)
    return _object_name(named)


def fingerprint_of(named: Any) -> str:
    """Return what identifies a verifier in a policy file: its fingerprint or else its name."""
    return str(getattr(named, "fingerprint", None) or stable_name(named))


def _function_name(function: Any) -> str:
    name = registered_path(f"{function.__module__}.{function.__qualname__}")
    code = getattr(function, "__code__", None)
    if code is None or str(function.__module__).partition(".")[0] == PACKAGE:
        return name
    # Edited functions keep their name, and all lambdas and closures of a function share one.
    cells = [_cell_contents(cell) for cell in function.__closure__ or ()]
    return f"{name}({repr_hash([code, cells, function.__defaults__, function.__kwdefaults__])})"


def _cell_contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not yet set
        return None


def _object_name(named: Any) -> str:
    fingerprint = getattr(named, "fingerprint", None)
    if isinstance(fingerprint, str):
        return f"{type(named).__name__}({fingerprint})"
    function = getattr(named, "func", None) or getattr(named, "afunc", None)
    if callable(function):  # a RunnableLambda, or LangSmith's wrapper of a function
        return f"{type(named).__name__}({stable_name(inspect.unwrap(function))})"
    return f"{stable_name(type(named))}({repr_hash([named])})"


def repr_hash(settings: list[Any]) -> str:
    """Return a hash of settings, in 16 hexadecimal digits."""
    text = ADDRESS.sub("", _stable_repr(settings))
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def _stable_repr(value: Any) -> str:
    """Return the `repr` of a value, with sets in a fixed order."""
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
    """Return a number in [0, 1) that depends only on the id and the seed."""
    digest = hashlib.sha256(f"{seed}:{query_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56
