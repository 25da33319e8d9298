"""`automix serve`: mixes behind OpenAI's protocol, for clients in any language."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_automix.cli.options import ServedModels, expand_options, typed_options
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
    policy: Annotated[
        Path, typer.Argument(help="Policy file; or a file of named mixes, such as mixes.toml.")
    ],
    models: ServedModels,
    host: Annotated[
        str, typer.Option(help="Address to listen at; one of other machines needs keys.")
    ] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="Name of the model to clients.")] = "automix",
    other_models: Annotated[
        bool,
        typer.Option("--other-models", help="Let the models have other names than the policy's."),
    ] = False,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The check of the answers; an unknown name lists all.",
            show_default="the policy's own",
        ),
    ] = None,
    learning: Annotated[
        str | None,
        typer.Option(metavar="STORE", help="Learn from the traffic, in this store."),
    ] = None,
    max_spend: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Refuse queries beyond these dollars.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds that one query may take.")] = 600,
    max_concurrent: Annotated[int, typer.Option(help="Queries at a time.", min=1)] = 1_000,
    grace: Annotated[
        float, typer.Option(help="Seconds that queries get to end when the server stops.")
    ] = 30,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A web page whose scripts may ask; repeatable.")
    ] = None,
    show_texts: Annotated[
        bool, typer.Option("--show-texts", help="Show questions on the live page.")
    ] = False,
    metrics_open: Annotated[
        bool, typer.Option("--metrics-open", help="Tell /metrics without a key.")
    ] = False,
) -> None:
    """Serve a mix to any client of OpenAI's protocol, until Ctrl-C.

    Clients send one of the keys in AUTOMIX_API_KEYS; without any, only this machine can ask.
    """
    _need_extra()
    from langchain_automix.serve.config_file import MixTable, ServeFile, read_serve_file

    if policy.suffix.lower() == _TOML:
        if typed := sorted(typed_options(invocation) - {"policy", "host", "port"}):
            raise AutoMixError(
                f"--{typed[0].replace('_', '-')} is said in {policy} where that is given: leave "
                "it out here."
            )
        config = read_serve_file(policy)
        given = typed_options(invocation)
        typed_values = {"host": host, "port": models.port}
        update = {key: value for key, value in typed_values.items() if key in given}
        _run(config.model_copy(update=update))
        return
    options = models.to_model_options()
    mix = MixTable.model_validate(
        {
            "models": options.specs,
            "policy": policy,
            "prices": models.prices,
            "check": check,
            "other_models": other_models,
            "learning": learning,
            "spend_limit": None if max_spend is None else {"limit": max_spend},
            "seed": models.seed,
            "samples": models.samples,
            "answer_tokens": models.answer_tokens,
            "weights": models.weights,
        }
    )
    if models.small is models.large is None and not other_models:
        _refuse_default_models(policy, options)
    _run(
        ServeFile.model_validate(
            {
                "mixes": {name: mix},
                "host": host,
                "port": models.port,
                "show_texts": show_texts,
                "metrics_open": metrics_open,
                "timeout": timeout,
                "max_concurrent": max_concurrent,
                "grace": grace,
                "cors_origins": tuple(cors_origin or ()),
            }
        )
    )


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
    from langchain_automix.serve.server import run_server
    from langchain_automix.serve.settings import check_host

    settings = config.to_settings()
    check_host(config.host, settings)
    with contextlib.ExitStack() as stack:
        mixes = {
            name: stack.enter_context(_opened(name, table)) for name, table in config.mixes.items()
        }
        app = create_app(mixes, settings)
        run_server(app, config.host, config.port, partial(_say_address, config, settings.keys))


def _say_address(config: ServeFile, keys: Sequence[Any], address: str) -> None:
    from langchain_automix.cli.terminal import echo

    named = "; ".join(f"{name} ({', '.join(mix.models)})" for name, mix in config.mixes.items())
    who = "with one of its keys"
    if not keys:
        who = "only from this machine, for no key is set (AUTOMIX_API_KEYS)"
    echo(f"automix: {named} at {address}, {who}.", to_stderr=True)
    echo(f"automix: live page at {address.removesuffix('v1')}", to_stderr=True)


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
