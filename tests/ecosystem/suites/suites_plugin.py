"""A pytest plugin for other people's suites: a mix goes where their fake chat model went.

Set by `tests.ecosystem.suites` in the variable `AUTOMIX_SUITE`:

- `bare`: nothing is changed.
- `accepted`: `create_agent(model)` becomes `create_agent(ChatAutoMix([model, unasked]))`, and every
  draft is accepted. The larger model is asked only where the smaller one's answer cannot be used or
  its call fails, and then says the same once more.
- `rejected`: it becomes `create_agent(ChatAutoMix([drafter, model]))`, and every draft is rejected.

With `AUTOMIX_SUITE_DOOR=middleware`, `create_agent(model)` keeps its model, and an
`AutoMixMiddleware` of the same two goes to the end of its middleware. Nothing else is changed.

With `AUTOMIX_SUITE_FAKES=mixed`, the fake chat models of `langchain_core` and of the suite become
mixes as they are made, for suites whose graphs ask a model without an agent.

With `AUTOMIX_SUITE_RECORD=ignored`, messages compare equal without the record of the mix: what
fails then fails for another reason.

With `AUTOMIX_SUITE_POSTGRES`, tests that use PostgreSQL find it there.

What begins, ends and fails is written to the file `AUTOMIX_SUITE_RESULTS` at once, a JSON object a
line, so that it is known also of a run that is stopped.

Otherwise only models that are chat models are changed, where they go into an agent (`create_agent`,
`create_react_agent`, `create_deep_agent`) or into middleware that asks a model by itself. Models
that a test makes and asks without an agent stay as they are.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import os
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda

from langchain_automix import AutoMixMiddleware, ChatAutoMix, ThresholdRouter, Verification

HOW = os.environ.get("AUTOMIX_SUITE", "bare")
DOOR = os.environ.get("AUTOMIX_SUITE_DOOR", "model")
COUNTED: Counter[str] = Counter()
# Who asks a model: where it is defined, and where else it is looked up.
_AGENTS = {
    "create_agent": ("langchain.agents.factory", "langchain.agents"),
    "create_react_agent": ("langgraph.prebuilt.chat_agent_executor", "langgraph.prebuilt"),
    "create_deep_agent": ("deepagents.graph", "deepagents"),
}
_MIDDLEWARE = ("SummarizationMiddleware", "LLMToolSelectorMiddleware", "LLMToolEmulator")

_last: list[ChatResult | Exception] = []
"""What the model asked last returned or raised."""


class _Quiet(BaseChatModel):
    """A model of ours beside theirs, of the same kind and provider."""

    profile: Any = None
    theirs: Any = None

    @property
    def _llm_type(self) -> str:
        return getattr(self.theirs, "_llm_type", "ours")

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[], **kwargs)

    def answer(self) -> ChatResult:
        """Return what is said to whatever is asked."""
        raise NotImplementedError

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self.answer()

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        if self.theirs is not None:
            found = self.theirs._get_ls_params().get("ls_provider")
            params["ls_provider"] = found or ""
        return params


class Unasked(_Quiet):
    """The larger model beside an accepted one: says, or raises, what that one did."""

    def answer(self) -> ChatResult:
        COUNTED["unasked"] += 1
        said = _last[-1] if _last else RuntimeError("No model was asked before.")
        if isinstance(said, Exception):
            raise said
        return said.model_copy(deep=True)


class Drafter(_Quiet):
    """The cheap model, each of whose drafts is rejected."""

    def answer(self) -> ChatResult:
        COUNTED["drafts"] += 1
        return ChatResult(generations=[ChatGeneration(message=AIMessage("A rejected draft."))])


def in_a_mix(model: Any) -> Any:
    """Return a chat model in a mix; anything else as it is."""
    return ChatAutoMix(**_mix_of(model)) if _is_theirs(model) else model


def _is_theirs(model: Any) -> bool:
    return isinstance(model, BaseChatModel) and not isinstance(model, ChatAutoMix | _Quiet)


def _mix_of(model: BaseChatModel) -> Any:
    """Return the arguments of a mix of a model and one of ours."""
    COUNTED["mixes"] += 1
    profile = getattr(model, "profile", None)
    ours: BaseChatModel = (Unasked if HOW == "accepted" else Drafter)(profile=profile, theirs=model)
    found = Verification(verdicts=(HOW == "accepted",))
    verifier: Runnable[Any, Any] = RunnableLambda(lambda _: found, name="check")
    return {
        "models": [model, ours] if HOW == "accepted" else [ours, model],
        "verifier": verifier,
        "router": ThresholdRouter(threshold=0.5),
    }


def _with_a_mix(made: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(made)
    def make(*args: Any, **kwargs: Any) -> Any:
        mixed = {name: in_a_mix(value) for name, value in kwargs.items()}
        return made(*map(in_a_mix, args), **mixed)

    return make


def _mixed_when_made(fake: type[BaseChatModel]) -> type[BaseChatModel]:
    """Return a class whose instances are mixes of a fake; classes derived from it stay fakes."""

    def make(kind: type[BaseChatModel], *args: Any, **kwargs: Any) -> Any:
        if kind is mixed:
            return in_a_mix(fake(*args, **kwargs))
        return object.__new__(kind)

    body = {"__new__": make, "__module__": fake.__module__}
    mixed: Any = types.new_class(fake.__name__, (fake,), exec_body=lambda space: space.update(body))
    return cast("type[BaseChatModel]", mixed)


def pytest_collection_finish(session: Any) -> None:
    """Have tests find their database, and the fake chat models that they import become mixes."""
    if postgres := os.environ.get("AUTOMIX_SUITE_POSTGRES"):
        for module in list(sys.modules.values()):
            if "DEFAULT_POSTGRES_URI" in getattr(module, "__dict__", ()):
                setattr(module, "DEFAULT_POSTGRES_URI", postgres)  # noqa: B010
    if HOW == "bare" or os.environ.get("AUTOMIX_SUITE_FAKES") != "mixed":
        return
    mixed: dict[Any, type[BaseChatModel]] = {}
    for module in {item.module for item in session.items if hasattr(item, "module")}:
        for name, kind in list(vars(module).items()):
            is_fake = isinstance(kind, type) and issubclass(kind, BaseChatModel)
            if is_fake and "Fake" in name and kind.__module__ != module.__name__:
                mixed.setdefault(kind, _mixed_when_made(kind))
                setattr(module, name, mixed[kind])


def _with_the_middleware(made: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(made)

    @functools.wraps(made)
    def make(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(*args, **kwargs).arguments
        model: Any = given.get("model")
        if _is_theirs(model):
            mix = AutoMixMiddleware(**_mix_of(model))
            kwargs["middleware"] = [*kwargs.get("middleware", ()), mix]
        return made(*args, **kwargs)

    return make


def _remember(name: str) -> None:
    """Have every model's answers remembered for `Unasked`."""
    made = getattr(BaseChatModel, name)

    def noted(model: BaseChatModel, said: ChatResult | Exception) -> None:
        if not isinstance(model, _Quiet | ChatAutoMix):
            kept = said if isinstance(said, Exception) else said.model_copy(deep=True)
            _last[:] = [kept]

    @functools.wraps(made)
    def ask(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        try:
            said = made(self, *args, **kwargs)
        except Exception as error:
            noted(self, error)
            raise
        noted(self, said)
        return said

    @functools.wraps(made)
    async def aask(self: BaseChatModel, *args: Any, **kwargs: Any) -> Any:
        try:
            said = await made(self, *args, **kwargs)
        except Exception as error:
            noted(self, error)
            raise
        noted(self, said)
        return said

    setattr(BaseChatModel, name, aask if inspect.iscoroutinefunction(made) else ask)


def _install() -> None:
    for name in ("_generate_with_cache", "_agenerate_with_cache"):
        _remember(name)
    if DOOR == "middleware":
        modules = [importlib.import_module(place) for place in _AGENTS["create_agent"]]
        made = _with_the_middleware(modules[0].__dict__["create_agent"])
        for module in modules:
            setattr(module, "create_agent", made)  # noqa: B010  (mypy allows no assignment)
        return
    for name, places in _AGENTS.items():
        try:
            modules = [importlib.import_module(place) for place in places]
        except ImportError:
            continue
        made = _with_a_mix(getattr(modules[0], name))
        for module in modules:
            setattr(module, name, made)
    try:
        middleware = importlib.import_module("langchain.agents.middleware")
    except ImportError:
        return
    for name in _MIDDLEWARE:
        kind: Any = getattr(middleware, name, None)
        if kind is not None:
            kind.__init__ = _with_a_mix(kind.__init__)


def _ignore_record() -> None:
    """Have messages compare equal that differ by the mix's record alone."""
    equal = BaseMessage.__eq__

    def bare(message: Any) -> Any:
        if not isinstance(message, BaseMessage) or "automix" not in message.response_metadata:
            return message
        metadata = {k: v for k, v in message.response_metadata.items() if k != "automix"}
        return message.model_copy(update={"response_metadata": metadata})

    def compare(self: BaseMessage, other: Any) -> Any:
        return equal(bare(self), bare(other))

    setattr(BaseMessage, "__eq__", compare)  # noqa: B010  (mypy allows no assignment)


if HOW != "bare":
    _install()
    if os.environ.get("AUTOMIX_SUITE_RECORD") == "ignored":
        _ignore_record()


def _write(**told: Any) -> None:
    if results := os.environ.get("AUTOMIX_SUITE_RESULTS"):
        with Path(results).open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(told)}\n")


def _write_failure(report: Any) -> None:
    crash = getattr(report.longrepr, "reprcrash", None)
    why = crash.message if crash else str(report.longrepr or "").strip().rpartition("\n")[-1]
    _write(test=report.nodeid, outcome="failed", why=why)


def pytest_collectreport(report: Any) -> None:
    """Note a file that cannot be collected."""
    if report.failed:
        _write_failure(report)


def pytest_runtest_logstart(nodeid: str) -> None:
    """Note that a test begins: one that never ends is known by it."""
    _last.clear()  # what another test's model said
    _write(test=nodeid, outcome="began")


def pytest_runtest_logreport(report: Any) -> None:
    """Note what a test came to."""
    if report.failed:
        _write_failure(report)
    elif report.skipped or report.when == "call":
        _write(test=report.nodeid, outcome=report.outcome)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Note that the run came to its end, and how often a mix was put in."""
    _write(exit=int(exitstatus), counted=dict(COUNTED))
