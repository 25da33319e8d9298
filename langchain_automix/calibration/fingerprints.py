"""Fingerprints of the calls of a calibration, by which later runs find the kept calls."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import urlsplit

from langchain_core.load import dumpd
from langchain_core.runnables import Runnable

from langchain_automix.calibration.graders.custom import grader_name
from langchain_automix.models.sampling import for_sampling
from langchain_automix.models.wrappers import fallbacks_and_config, unwrap
from langchain_automix.utils.fingerprints import ADDRESS
from langchain_automix.utils.identifiers import registered_id

# Connection settings, which do not change the answers of a model.
_CONNECTION = frozenset(
    {
        "cache",
        "callbacks",
        "max_retries",
        "name",
        "rate_limiter",
        "request_timeout",
        "timeout",
        "verbose",
    }
)


def model_fingerprint(model: Runnable[Any, Any]) -> str:
    """Return a short hash of a model's settings and bound arguments, which determine its answers.

    It leaves out connection settings, keys, and the port of a server on this machine.
    """
    chat_model, bound = unwrap(model)
    if chat_model is None:
        return json_hash(grader_name(model))
    if chat_model.is_lc_serializable():
        settings: Any = _without_addresses(dumpd(chat_model).get("kwargs", {}))
    else:
        settings = chat_model._identifying_params  # noqa: SLF001  (as in LangChain's cache)
    kept = {k: _without_local_port(v) for k, v in settings.items() if k not in _CONNECTION}
    shape = [type(chat_model).__name__, kept, bound]
    fallbacks, configured = fallbacks_and_config(model)
    if fallbacks or configured:
        shape += [[model_fingerprint(fallback) for fallback in fallbacks], configured]
    return json_hash(shape)


def json_hash(what: Any) -> str:
    """Return a hash of a value: 16 hexadecimal digits."""
    text = json.dumps(what, sort_keys=True, default=to_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_setting(name: str, asker: Any) -> dict[str, str]:
    """Return the fingerprint of the own model of a check or a grader, if it has one."""
    model = getattr(asker, "model", None)
    if not isinstance(model, Runnable):
        return {}
    # The fingerprint of the check or grader already covers the sampling.
    return {f"{name} model": model_fingerprint(for_sampling(model, temperature=0.0, max_tokens=1))}


def to_json(value: Any) -> Any:
    """Return a value as JSON data: LangChain's dump of it, which is the same in every process."""
    dump = dumpd(value)
    # Of an object that cannot be dumped, only its type is the same in the next process.
    is_unknown = isinstance(dump, dict) and dump.get("type") == "not_implemented"
    return grader_name(value) if is_unknown else _without_addresses(dump)


def _without_addresses(dump: Any) -> Any:
    """Return a dump without memory addresses and without modules of this package."""
    if isinstance(dump, list):
        return [_without_addresses(each) for each in dump]
    if not isinstance(dump, dict):
        return dump
    kept = {name: _without_addresses(each) for name, each in dump.items()}
    if dump.get("type") in ("constructor", "not_implemented") and dump.get("lc") == 1:
        kept["id"] = registered_id(dump["id"])
    if dump.get("type") == "not_implemented" and isinstance(dump.get("repr"), str):
        kept["repr"] = ADDRESS.sub("", dump["repr"])
    return kept


def _without_local_port(value: Any) -> Any:
    """Return a URL on this machine without its port, which changes from run to run."""
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        parts = urlsplit(value)
        if parts.hostname in ("127.0.0.1", "localhost", "::1"):
            return f"{parts.scheme}://{parts.hostname}{parts.path}"
    return value
