"""Fingerprints of what a calibration asks: kept calls are recognised by them in later runs."""

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

# Connection settings: they do not change what a model answers.
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
    """Return a short hash of what a model's answers depend on: its settings and bound arguments.

    Connection settings, keys and the port of a server on this machine are left out.
    """
    chat_model, bound = unwrap(model)
    if chat_model is None:
        return json_hash(grader_name(model))
    if chat_model.is_lc_serializable():
        settings: Any = _without_addresses(dumpd(chat_model).get("kwargs", {}))
    else:
        settings = chat_model._identifying_params  # noqa: SLF001  (what LangChain's cache goes by)
    kept = {k: _without_local_port(v) for k, v in settings.items() if k not in _CONNECTION}
    shape = [type(chat_model).__name__, kept, bound]
    fallbacks, configured = fallbacks_and_config(model)
    if fallbacks or configured:
        shape += [[model_fingerprint(fallback) for fallback in fallbacks], configured]
    return json_hash(shape)


def json_hash(what: Any) -> str:
    """Return a hash of a value, 16 hexadecimal digits long."""
    text = json.dumps(what, sort_keys=True, default=to_json)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_setting(name: str, asker: Any) -> dict[str, str]:
    """Return the fingerprint of a check's or a grader's own model, if it has one."""
    model = getattr(asker, "model", None)
    if not isinstance(model, Runnable):
        return {}
    # The sampling is in the fingerprint of the check or grader.
    return {f"{name} model": model_fingerprint(for_sampling(model, temperature=0.0, max_tokens=1))}


def to_json(value: Any) -> Any:
    """Return a value as JSON holds it: LangChain's dump of it, the same in every process."""
    dump = dumpd(value)
    # Only the kind of an object that cannot be dumped is the same in the next process.
    is_unknown = isinstance(dump, dict) and dump.get("type") == "not_implemented"
    return grader_name(value) if is_unknown else _without_addresses(dump)


def _without_addresses(dump: Any) -> Any:
    """Return a dump without addresses in memory and modules of this package."""
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
