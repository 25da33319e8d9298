"""Keep mixes with tools for `ChatAutoMix.bind_tools`, so that each is built only once."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.tools import BaseTool

from langchain_automix.mix.answer_format import Tool
from langchain_automix.mix.runnable import AutoMixRunnable
from langchain_automix.models.tools import tools_as_shown

_MOST = 8


class _BoundMix(NamedTuple):
    """A mix with tools, and what it was built from."""

    shown: list[dict[str, Any]]
    made_of: list[Any]
    settings: Mapping[str, Any]
    mix: AutoMixRunnable


class BoundMixes:
    """The mixes with tools that were built most recently.

    An agent binds the same tools at every step, and asks a bound model many times.
    """

    def __init__(self) -> None:
        self._made: deque[_BoundMix] = deque(maxlen=_MOST)

    def bind(
        self, mix: AutoMixRunnable, tools: Sequence[Tool], settings: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Bind tools to every model of a mix.

        Args:
            mix: The mix; the same one for all calls.
            tools: The tools.
            settings: Further arguments of `bind_tools`.

        Returns:
            The tools as dicts, for agents to inspect and for `find` to identify the mix.
        """
        made_of = [_contents(tool) for tool in tools]
        for made in list(self._made):
            if None not in made_of and (made.made_of, made.settings) == (made_of, settings):
                return made.shown
        shown = tools_as_shown(tools)
        bound = mix.with_tools(shown, settings)
        self._made.append(_BoundMix(shown, made_of, settings, bound))
        return shown

    def find(self, shown: Sequence[Any], settings: Mapping[str, Any]) -> AutoMixRunnable | None:
        """Return the mix that `bind` built, or None if it was never built or has been dropped."""
        for made in list(self._made):
            if made.shown is shown and made.settings == settings:
                return made.mix
        return None


def _contents(tool: Tool) -> Any:
    """Return what a tool's format depends on; None for a dict, which may be modified in place."""
    if isinstance(tool, BaseTool):
        shown = tool.name, tool.description, id(tool.args_schema)
        return (id(tool), *shown, tool.extras and dict(tool.extras), tool.metadata)
    return None if isinstance(tool, Mapping) else id(tool)
