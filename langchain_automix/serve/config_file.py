"""Named mixes, and how they are served, in a TOML file."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from langchain_automix.errors import AutoMixError, first_problem, near_matches
from langchain_automix.learning.learning import Learning
from langchain_automix.mix.limits.spend_limit import SpendLimit
from langchain_automix.serve.keys import ApiKey, key_in, keys_of_environment
from langchain_automix.serve.settings import ServeSettings
from langchain_automix.utils.files import reason_of


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class LimitTable(_Table):
    """A spend limit."""

    limit: Decimal | str
    """US dollars, such as `"5 USD"`."""

    per: timedelta | None = None
    """The time in which at most that is spent: seconds, or ISO 8601 such as `"P1D"`."""

    store: str | None = None
    """Where it is kept for several processes, such as `"redis://localhost:6379/0"`."""

    when_spent: Literal["cheapest", "raise"] = "raise"
    """At the limit: refuse queries with status 429, or have the cheapest model answer."""

    @model_validator(mode="after")
    def _check_limit(self) -> Self:
        try:
            SpendLimit(self.limit, per=self.per)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        return self

    def to_limit(self, name: str) -> SpendLimit:
        """Return the limit, its ledger under a name."""
        fields = {"per": self.per, "store": self.store, "when_spent": self.when_spent}
        return SpendLimit(self.limit, name=name, **fields)


class KeyTable(_Table):
    """A client's key, which stands in the environment and never in a file."""

    env: str = Field(min_length=1)
    """Name of the environment variable that holds the key."""

    spend_limit: LimitTable | None = None

    def to_key(self, name: str) -> ApiKey:
        """Return the key of this name.

        Raises:
            AutoMixError: The variable holds no key.
        """
        key = ApiKey.of(name, key_in(self.env))
        if self.spend_limit is None:
            return key
        return key.limited(self.spend_limit.to_limit("limit"))


class MixTable(_Table):
    """One mix."""

    models: tuple[str, ...] = Field(min_length=2)
    """Two or more, cheap to expensive, as `--small` takes them."""

    policy: Path | None = None
    """Policy file; None: a prior, not calibrated, or what is learned."""

    prices: Path | dict[str, dict[str, float]] | None = None
    """Dollars per million tokens, by model; or a file with them."""

    check: str | None = None
    """Name of the check; None: the policy's own."""

    other_models: bool = False
    """Whether the models may have other names than the policy's."""

    learning: str | dict[str, Any] | None = None
    """The store of a mix that learns, or the arguments of `Learning`."""

    spend_limit: LimitTable | None = None
    seed: int = 7
    samples: int = Field(default=8, ge=1)
    answer_tokens: int = Field(default=512, ge=1)
    """Longest answer of a local model, in tokens."""

    weights: Path | None = None
    """Folder with the weights of local models."""

    @field_validator("learning")
    @classmethod
    def _check_learning(cls, learning: Any) -> Any:
        if isinstance(learning, Mapping):
            known = [*inspect.signature(Learning).parameters]
            if unknown := sorted(learning.keys() - known):
                near = near_matches(unknown[0], known)
                raise ValueError(f"Learning has no {unknown[0]!r}.{near}")
            if "store" not in learning:
                raise ValueError('the store is missing, such as store = "sqlite:///automix.db".')
        return learning

    def to_learning(self) -> Learning | None:
        """Return what learns from the mix; None: nothing does.

        Raises:
            AutoMixError: A setting is not possible, or the store cannot be opened.
        """
        if self.learning is None:
            return None
        given = {"store": self.learning} if isinstance(self.learning, str) else self.learning
        return Learning(**given)

    def within(self, folder: Path) -> MixTable:
        """Return the mix with its files found from a folder."""
        found = {
            name: folder / path.expanduser()
            for name in ("policy", "prices", "weights")
            if isinstance(path := getattr(self, name), Path)
        }
        return self.model_copy(update=found)


class ServeFile(_Table):
    """What a TOML file says."""

    mixes: dict[str, MixTable] = Field(min_length=1)
    keys: dict[str, KeyTable] = Field(default_factory=dict)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    show_texts: bool = ServeSettings.show_texts
    metrics_open: bool = ServeSettings.metrics_open
    max_body_bytes: int = ServeSettings.max_body_bytes
    timeout: float = ServeSettings.timeout
    max_concurrent: int = ServeSettings.max_concurrent
    grace: float = ServeSettings.grace
    cors_origins: tuple[str, ...] = ServeSettings.cors_origins

    def to_settings(self) -> ServeSettings:
        """Return the settings, with the keys of the file and of `AUTOMIX_API_KEYS`.

        Raises:
            AutoMixError: A key is missing, or a setting is not possible.
        """
        names = ServeSettings.__dataclass_fields__.keys() - {"keys"}
        keys = [table.to_key(name) for name, table in self.keys.items()]
        return ServeSettings(
            keys=(*keys, *keys_of_environment()), **{name: getattr(self, name) for name in names}
        )


def read_serve_file(path: Path) -> ServeFile:
    """Return what a TOML file says.

    Raises:
        AutoMixError: It cannot be read, or says what is not known.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise AutoMixError(f"{path} cannot be read: {reason_of(error)}.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise AutoMixError(f"{path} is not TOML: {error}.") from error
    try:
        read = ServeFile.model_validate(given)
    except ValidationError as error:
        raise AutoMixError(f"{path}: {_problem(error)}") from error
    folder = path.parent
    mixes = {name: mix.within(folder) for name, mix in read.mixes.items()}
    return read.model_copy(update={"mixes": mixes})


def _problem(error: ValidationError) -> str:
    """Return the first problem, on one line; unknown fields, with the nearest known one, first."""
    problems = error.errors(include_url=False)
    unknown = [each["loc"] for each in problems if each["type"] == "extra_forbidden"]
    if not unknown:
        return first_problem(error)
    *where, name = unknown[0]
    table: Any = ServeFile
    if where and where[-1] == "spend_limit":
        table = LimitTable
    elif where:
        table = {"mixes": MixTable, "keys": KeyTable}.get(str(where[0]), ServeFile)
    near = near_matches(str(name), table.model_fields)
    return f"field {'.'.join(map(str, unknown[0]))}: there is no such field.{near}"
