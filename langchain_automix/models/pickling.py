"""Pickle chat models and embeddings; their clients are rebuilt in the process that loads them."""

from __future__ import annotations

import copyreg
import importlib
import pickle
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, SupportsIndex

from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseLanguageModel
from pydantic import BaseModel, SecretStr
from typing_extensions import override

_URL_OF_CLIENT = (
    ("openai_api_base", "root_client.base_url"),
    ("openai_api_base", "client._client.base_url"),
    ("base_url", "_client._client.base_url"),
)
"""Fields that say where a model is, and where its client has what it read from the environment."""

_TRIED: ContextVar[frozenset[int]] = ContextVar("automix_tried", default=frozenset())
"""Ids of the models of which a part is being tried, from the outermost to the innermost."""

_OWN_WAYS = ("__reduce__", "__reduce_ex__", "__getstate__")


class HoldsModels:
    """Mixin for classes that hold chat models, so that these can be pickled with them."""

    @override
    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        make_models_picklable()
        return super().__reduce_ex__(protocol)


def make_models_picklable() -> None:
    """Teach `pickle` and cloudpickle the model classes that have been imported so far.

    A class that defines its own pickling, or is registered already, is left unchanged. The pickle
    of a model contains its API key, as readable as in any pickle of a `SecretStr`.
    """
    for kind in _subclasses(BaseLanguageModel, Embeddings):
        if issubclass(kind, BaseModel) and not any(_changes(kind, name) for name in _OWN_WAYS):
            copyreg.dispatch_table.setdefault(kind, _reduce)


def _subclasses(*kinds: type) -> Iterator[type]:
    for kind in kinds:
        subclasses: list[type] = type.__subclasses__(kind)
        yield from subclasses
        yield from _subclasses(*subclasses)


def _changes(kind: type, name: str) -> bool:
    plain = (getattr(BaseModel, name), getattr(object, name))
    return getattr(kind, name) not in plain


def _reduce(model: BaseModel) -> Any:
    """Return how to rebuild an equal model, except for objects that belong to this process.

    Clients, sessions and connection pools cannot be sent. Those that the class creates itself are
    created again in the other process, from the arguments of the model. Its caches start empty.

    Raises:
        pickle.PicklingError: The model holds such an object, and its class would not create it.
    """
    tried_by = _TRIED.get()
    if id(model) in tried_by:  # it refers to itself
        return object, ()
    fields, private = _fields(model), dict(model.__pydantic_private__ or {})
    excluded = [name for name in fields if type(model).model_fields[name].exclude]
    doubtful = {name: {**fields, **private}[name] for name in (*excluded, *private)}
    token = _TRIED.set(tried_by | {id(model)})
    try:
        stuck = [name for name, value in doubtful.items() if not _can_be_sent(value)]
    finally:
        _TRIED.reset(token)
    cached = model.__dict__.keys() - fields.keys()
    if not stuck and not cached and not tried_by:
        return object.__reduce_ex__(model, 4)
    arguments: dict[str, Any] = {}
    if stuck:
        arguments = _arguments(model, without=stuck)
        _check_made_anew(model, stuck, arguments)
    if tried_by:  # what is tried already need not be pickled twice
        return list, ([value for name, value in fields.items() if name not in doubtful],)
    state = {
        "__dict__": {name: value for name, value in fields.items() if name not in stuck},
        "__pydantic_private__": {n: value for n, value in private.items() if n not in stuck},
        "__pydantic_extra__": model.__pydantic_extra__,
        "__pydantic_fields_set__": set(model.model_fields_set),
    }
    made = (type(model), arguments if stuck else None)
    # The state is not among the arguments, because it may refer to the model.
    return _make, made, (bool(stuck), state), None, None, _restore


def _fields(model: BaseModel) -> dict[str, Any]:
    return {n: value for n, value in model.__dict__.items() if n in type(model).model_fields}


def _arguments(model: BaseModel, without: list[str]) -> dict[str, Any]:
    """Return the arguments for an equal model: the fields that were set, API keys, and servers.

    They include what came from the environment, because the other process may have another one.
    """
    found = {
        name: value
        for name, value in _fields(model).items()
        if name not in without and (name in model.model_fields_set or isinstance(value, SecretStr))
    }
    if getattr(model, "azure_endpoint", None) is None:  # which says where it is
        found |= _read_urls(model)
    return found


def _read_urls(model: BaseModel) -> dict[str, str]:
    """Return the URLs that clients have read from the environment, by the field for each."""
    found: dict[str, str] = {}
    for field, path in _URL_OF_CLIENT:
        if field in type(model).model_fields and getattr(model, field) is None:
            url: Any = model
            for name in path.split("."):
                url = getattr(url, name, None)
            if url is not None:
                found.setdefault(field, str(url))
    return found


def _check_made_anew(model: BaseModel, stuck: list[str], arguments: Mapping[str, Any]) -> None:
    fresh = type(model)(**arguments)
    for name in stuck:
        value, made = getattr(model, name), getattr(fresh, name)
        # Compare names, because botocore creates a new class for each client.
        if _kind(made) != _kind(value):
            raise pickle.PicklingError(
                f"{type(model).__name__} cannot be sent to another process: its {name}, a "
                f"{_kind(value)}, belongs to this one. Leave it out, or make the model where it is "
                "used."
            )


def _kind(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _make(kind: type[BaseModel], arguments: Mapping[str, Any] | None) -> BaseModel:
    return kind.__new__(kind) if arguments is None else kind(**arguments)


def _restore(model: BaseModel, given: tuple[bool, Any]) -> None:
    """Set the state of a model; what the class has created itself stays."""
    is_made_anew, state = given
    kind = type(model)
    if is_made_anew:
        made = model.__getstate__()
        for name in ("__dict__", "__pydantic_private__"):
            own = {n: v for n, v in (made[name] or {}).items() if n in _kept_names(kind, name)}
            state[name] = {**own, **state[name]}
    if not state["__pydantic_private__"]:
        state["__pydantic_private__"] = None
    model.__setstate__(state)


def _kept_names(kind: type[BaseModel], part: str) -> Mapping[str, Any]:
    return kind.model_fields if part == "__dict__" else kind.__private_attributes__


def _can_be_sent(value: Any) -> bool:
    """Return whether a value can be pickled, with cloudpickle if that is installed."""
    try:
        pickler = importlib.import_module("cloudpickle")
    except ImportError:
        pickler = pickle
    try:
        pickler.dumps(value)
    except Exception:  # noqa: BLE001  (a class may raise anything here)
        return False
    return True
