"""`automix serve`: mixes behind OpenAI's protocol, for clients in any language."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_automix.cli.options import (
    ServedMixOptions,
    ServedModels,
    ServerOptions,
    expand_options,
    typed_options,
)
from langchain_automix.errors import AutoMixError

if TYPE_CHECKING:
    from langchain_automix.local.models import Model, ModelOptions
    from langchain_automix.mix.chat_model import ChatAutoMix
    from langchain_automix.serve.config_file import MixTable, ServeFile
    from langchain_automix.serve.mixes import PolicyFile

_TOML = ".toml"


def register(app: typer.Typer) -> None:
    """Add `serve` to the command line; errors are `AutoMixError`."""
    app.command("serve")(expand_options(serve))


def serve(
    invocation: typer.Context,
    models: ServedModels,
    rules: ServedMixOptions,
    server: ServerOptions,
    policy: Annotated[
        Path | None,
        typer.Argument(
            help="Policy file, which --learning does not need; or a file of named mixes, such as "
            "mixes.toml."
        ),
    ] = None,
) -> None:
    """Serve a mix to any client of OpenAI's protocol, until Ctrl-C.

    Clients send one of the keys in AUTOMIX_API_KEYS; without any, only this machine can ask.
    """
    _need_extra()
    if policy is not None and policy.suffix.lower() == _TOML:
        _run(_read_file(policy, typed_options(invocation), server.host, models.port))
        return
    if policy is None:
        _need_what_a_policy_says(models, rules)
    elif models.small is models.large is None and not rules.other_models:
        _refuse_default_models(policy, models.to_model_options())
    mix = _to_table(policy, models, rules)
    _run(_to_file({server.name: mix}, server, models.port))


def _need_what_a_policy_says(models: ServedModels, rules: ServedMixOptions) -> None:
    """Refuse to serve a mix of which neither a policy nor the options say enough.

    Raises:
        AutoMixError: There is nothing to decide by, or a model is not named.
    """
    if rules.learning is None:
        raise AutoMixError(
            "There is no policy to serve: give a policy file, as `automix fit` writes it, a file "
            "of mixes (.toml), or --learning STORE to begin without a policy."
        )
    if models.small is None or models.large is None:
        raise AutoMixError("Without a policy file, name the models: give --small and --large.")


def _to_table(policy: Path | None, models: ServedModels, rules: ServedMixOptions) -> MixTable:
    """Return what a file would say of the mix."""
    from langchain_automix.serve.config_file import MixTable

    limit = None if rules.max_spend is None else {"limit": rules.max_spend}
    names = ("prices", "seed", "samples", "answer_tokens", "weights")
    return MixTable.model_validate(
        {
            **{name: getattr(models, name) for name in names},
            **{name: getattr(rules, name) for name in ("other_models", "check", "learning")},
            "models": models.to_model_options().specs,
            "policy": policy,
            "spend_limit": limit,
        }
    )


def _to_file(mixes: Mapping[str, MixTable], server: ServerOptions, port: int) -> ServeFile:
    """Return what a file of these mixes would say."""
    from langchain_automix.serve.config_file import ServeFile

    names = ("host", "timeout", "max_concurrent", "grace", "show_texts", "metrics_open")
    given = {name: getattr(server, name) for name in names}
    origins = tuple(server.cors_origin or ())
    return ServeFile.model_validate(
        {**given, "mixes": mixes, "port": port, "cors_origins": origins}
    )


def _read_file(path: Path, typed: set[str], host: str, port: int) -> ServeFile:
    """Return what a file says, but for the address where that is typed.

    Raises:
        AutoMixError: It cannot be used, or something else is typed beside it.
    """
    from langchain_automix.serve.config_file import read_serve_file

    address = {"host": host, "port": port}
    if others := sorted(typed - {"policy", *address}):
        raise AutoMixError(
            f"--{others[0].replace('_', '-')} does not go with a file of mixes: say it in {path}."
        )
    update = {name: value for name, value in address.items() if name in typed}
    return read_serve_file(path).model_copy(update=update)


def _need_extra() -> None:
    """Say how the extra `serve` is installed, where it is not.

    Raises:
        AutoMixError: It is not.
    """
    from langchain_automix.utils.install import install_hint

    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise AutoMixError(f"{error.name} is not installed: {install_hint('serve')}") from error


def _refuse_default_models(policy: Path, options: ModelOptions) -> None:
    from langchain_automix.cli.open_models import refuse_default_models
    from langchain_automix.routers.pomdp import POMDPRouter

    router = POMDPRouter.load(policy)
    if router.is_calibrated:
        refuse_default_models(policy, router.policy, options)


def _run(config: ServeFile) -> None:
    """Open all models, and serve until a signal ends it."""
    from langchain_automix.serve.app import create_app
    from langchain_automix.serve.limits import LoopbackHosts
    from langchain_automix.serve.server import run_server
    from langchain_automix.serve.settings import check_host

    settings = config.to_settings()
    check_host(config.host, settings)
    with contextlib.ExitStack() as stack:
        mixes = {
            name: stack.enter_context(_opened(name, table)) for name, table in config.mixes.items()
        }
        app = create_app(mixes, settings)
        if not settings.keys:
            app.add_middleware(LoopbackHosts)
        run_server(app, config.host, config.port, partial(_say_address, config, settings.keys))


def _say_address(config: ServeFile, keys: Sequence[Any], address: str) -> None:
    from langchain_automix.cli.terminal import echo

    named = "; ".join(f"{name} ({_described(mix)})" for name, mix in config.mixes.items())
    who = "with one of its keys"
    if not keys:
        who = "only from this machine, for no key is set (AUTOMIX_API_KEYS)"
    echo(f"automix: {named} at {address}, {who}.", to_stderr=True)
    echo(f"automix: live page at {address.removesuffix('v1')}", to_stderr=True)


def _described(mix: MixTable) -> str:
    """Return the models of a mix, and who answers at first where it learns."""
    models = ", ".join(mix.models)
    match mix.learning:
        case None:
            return models
        case {"mode": "observe"}:
            return f"{models}; it observes: {mix.models[-1]} answers"
    return f"{models}; it learns: {mix.models[-1]} answers until a learned policy is proven"


def _warn_of_prices(name: str, chats: Sequence[Any], prices: Any) -> None:
    """Say which models of a mix have no known price."""
    from langchain_automix.models.identity import lacks_price, model_names
    from langchain_automix.models.prices import price_list_hint
    from langchain_automix.utils.user_warnings import warn_user

    named = zip(model_names(chats), chats, strict=True)
    if unpriced := [model for model, chat in named if lacks_price(chat, prices)]:
        warn_user(
            f"The price of {' and '.join(unpriced)} is not known, so costs and savings of the mix "
            f"{name!r} will be unknown: give --prices FILE (dollars per million tokens), or prices "
            f"in a file of mixes.{price_list_hint()}"
        )


@contextlib.contextmanager
def _opened(name: str, table: MixTable) -> Iterator[ChatAutoMix | PolicyFile]:
    """Open the models of a mix for the length of a `with` block, and yield what makes it."""
    from rich.console import Console

    from langchain_automix.cli.checks import resolve_checks
    from langchain_automix.cli.inputs import read_prices
    from langchain_automix.cli.open_models import opened_models
    from langchain_automix.local.models import ModelOptions
    from langchain_automix.serve.mixes import PolicyFile

    resolve_checks([table.check] if table.check else [])
    prices = read_prices(table.prices) if isinstance(table.prices, Path) else table.prices
    options = ModelOptions(
        small=table.models[0],
        large=table.models[-1],
        middle=table.models[1:-1],
        weights=table.weights,
        seed=table.seed,
        samples=table.samples,
        answer_tokens=table.answer_tokens,
    )
    limit = table.spend_limit
    learner = table.to_learning()
    fields = {
        "prices": prices,
        "learning": learner,
        "spend_limit": None if limit is None else limit.to_limit(f"mix {name}"),
    }
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(opened_models(options, Console(stderr=True)))
        if learner is not None:
            stack.callback(learner.close)
        chats = [_telling_usage(model.chat) for model in models]
        _warn_of_prices(name, chats, prices)
        make = partial(_make, table, options, models, {"models": chats, **fields})
        yield make(None) if table.policy is None else PolicyFile(table.policy, make)


def _make(
    table: MixTable,
    options: ModelOptions,
    models: Sequence[Model],
    fields: Mapping[str, Any],
    policy: Path | None,
) -> ChatAutoMix:
    """Make a mix by its policy file, if it has one."""
    from langchain_automix.cli.checks import build_check, build_policy_check
    from langchain_automix.mix.chat_model import ChatAutoMix
    from langchain_automix.mix.from_policy import validate_models
    from langchain_automix.routers.pomdp import POMDPRouter

    chosen: dict[str, Any] = {}
    if policy is not None:
        router = POMDPRouter.load(policy)
        if router.is_calibrated and not table.other_models:
            validate_models(f"The policy {policy}", router.policy.models, fields["models"])
        check = build_policy_check(policy, router.policy, table.check, models, options)
        chosen = {"router": router, "verifier": check}
    elif table.check is not None:
        chosen = {"verifier": build_check(table.check, models, options)}
    return ChatAutoMix(**fields, **chosen)


def _telling_usage(chat: Any) -> Any:
    """Return a chat model that tells its tokens in streams, too, where it can be asked to."""
    if "stream_usage" in type(chat).model_fields:
        return chat.model_copy(update={"stream_usage": True})
    return chat
