"""What the metadata of a log's queries say of its checks and labels, without their texts."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from typing_extensions import override

_KEPT = ("check", "check_spec", "labelled", "labels", "verifier")
_NONE = -1


class QueryFacts(MutableMapping[int, Any]):
    """The metadata of queries by their index, as far as many have the same: four bytes a query.

    Of what is put in, only what fits, evaluations and reports go by is kept.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._distinct: list[dict[str, Any]] = []
        self._number: dict[str, int] = {}
        self._which = array("i")

    @override
    def __setitem__(self, place: int, metadata: Any) -> None:
        self._pad(place + 1)
        self._which[place] = self._number_of(_facts(metadata))

    @override
    def __getitem__(self, place: int) -> Any:
        number = self._which[place] if 0 <= place < len(self._which) else _NONE
        if number == _NONE:
            raise KeyError(place)
        return self._distinct[number]

    @override
    def __delitem__(self, place: int) -> None:
        _ = self[place]
        self._which[place] = _NONE

    @override
    def __iter__(self) -> Iterator[int]:
        return (place for place, number in enumerate(self._which) if number != _NONE)

    @override
    def __len__(self) -> int:
        return len(self._which) - self._which.count(_NONE)

    def append(self, other: QueryFacts, place: int) -> None:
        """Take in those of further queries, the first of which has this index."""
        self._pad(place)
        numbers = [self._number_of(each) for each in other._distinct]
        numbers.append(_NONE)  # which the index -1 finds
        self._which.extend(map(numbers.__getitem__, other._which))

    def _pad(self, length: int) -> None:
        self._which.extend([_NONE] * (length - len(self._which)))

    def _number_of(self, facts: dict[str, Any]) -> int:
        if self._distinct and facts == self._distinct[-1]:
            return len(self._distinct) - 1
        number = self._number.setdefault(json.dumps(facts, sort_keys=True), len(self._distinct))
        if number == len(self._distinct):
            self._distinct.append(facts)
        return number


def _facts(metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        return {}
    facts = {name: metadata[name] for name in _KEPT if name in metadata}
    replies = metadata.get("check_replies")
    if isinstance(replies, Mapping):  # the names of the checks that were asked for
        facts["check_replies"] = dict.fromkeys(replies)
    return facts
