"""Read numbers as people write them, with every value that a notation may stand for."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from langchain_automix.utils.text import UNSPACED, normalize_characters

# Arabic marks replace a mark that is certainly a group mark, or certainly a decimal mark.
_GROUP, _DECIMAL = "\u066c", "\u066b"
_GROUPS = {
    ".": re.compile(r"\d{1,3}(?:\.\d{3})+"),
    ",": re.compile(r"\d{1,3}(?:,\d{3})+|\d{1,2}(?:,\d{2})*,\d{3}"),  # 12,34,567 in India
    _GROUP: re.compile(
        rf"\d{{1,3}}(?:{_GROUP}\d{{3}})+|\d{{1,2}}(?:{_GROUP}\d{{2}})*{_GROUP}\d{{3}}"
    ),
}
_MARKS = re.compile(rf"[.,{_GROUP}{_DECIMAL}]")
_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.(?:\d{2}|\d{4})")

_NUMERAL = (
    rf"(?:\d{{1,3}}(?:[ ]\d{{3}})+(?!\d)(?:[.,{_DECIMAL}]\d+)?"
    rf"|\d+(?:[.,{_GROUP}{_DECIMAL}]\d+)*|[.{_DECIMAL}]\d+)"
)
_LETTER = rf"[^\W\d_{UNSPACED}\uac00-\ud7af]"  # of a script that sets numbers apart with spaces
_SIGNS = "-+\u2212"
_CURRENCY = (
    r"(?:US\$|R\$|USD|EUR|GBP|CHF|INR|JPY|CNY|RMB|Rs\.?|[$\u20ac\xa3\xa5\u20b9\u20bd\u20a9])"
)
_SCALES: tuple[tuple[str, tuple[int, ...]], ...] = (
    (r"hundred|\u767e", (2,)),
    (r"thousand|tausend|mille|mila|mil|tys\.?|\u0442\u044b\u0441\w*\.?|\u5343", (3,)),
    (r"\u4e07|\u842c", (4,)),
    (r"lakhs?|lacs?", (5,)),
    (r"millions?|millionen|mill\u00f3n|millones|milh\u00e3o|milh\u00f5es|milioni?e?"
     r"|mio\.?|mln\.?|\u043c\u043b\u043d\.?|\u043c\u0438\u043b\u043b\u0438\u043e\u043d\w*", (6,)),
    (r"crores?", (7,)),
    (r"\u4ebf|\u5104", (8,)),
    (r"milliards?|milliarden|miliardi?o?|mrd\.?|bilh\u00e3o|bilh\u00f5es"
     r"|\u043c\u043b\u0440\u0434\.?|\u043c\u0438\u043b\u043b\u0438\u0430\u0440\u0434\w*", (9,)),
    (r"billions?", (9, 12)),  # a billion is a million millions in most of Europe
    (r"billionen|billones|bill\u00f3n", (12, 9)),
    (r"trillions?", (12, 18)),
    (r"\u5146", (12, 6)),
)  # fmt: skip
_SUFFIXES = {"k": 3, "K": 3, "M": 6, "m": 6, "mn": 6, "B": 9, "bn": 9, "T": 12, "tn": 12}
_SCALE = "|".join(words for words, _ in _SCALES)
# fmt: off
_NUMBER = re.compile(
    rf"""(?<!{_LETTER})                    # not within a word such as Q4
    (?<!\d)(?<!\d[.,{_GROUP}{_DECIMAL}])
    (?<![\^_])(?<![\^_][-{{(])(?<![\^_][{{(]-)      # nor an exponent of a unit, or an index
    (?P<sign>(?<![\w.)\]])[{_SIGNS}]\s?)?           # a minus after a number stands for "to"
    (?P<sign_word>\b(?i:minus|negative)\s)?
    (?P<currency>{_CURRENCY})?\s?
    (?P<sign_after>(?<=[$\u20ac\xa3\xa5])[-\u2212])?
    (?:(?P<whole>\d{{1,9}})\s(?=\d{{1,4}}/\d{{1,4}}(?![\d/])))?
    (?P<number>{_NUMERAL})
    (?:[eE](?P<exponent>[{_SIGNS}]?\d+)(?!\w)
      |\s*(?:[x*\xd7]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*[{{(]?(?P<power>[{_SIGNS}]?\d+)[)}}]?
      |\s?(?:\^|\*\*)\s?[{{(]?(?P<raised>[{_SIGNS}]?\d{{1,3}}(?!\d))[)}}]?)?
    (?:\s?/\s?(?P<divisor>{_NUMERAL})(?!\d*\s?/))?
    (?P<scale>(?:[\s-]?(?i:{_SCALE})(?!{_LETTER})){{0,2}})
    (?:[ ]?(?P<suffix>mn|bn|tn|[kKMmBT])(?!\w))?
    (?:\s?(?P<percent>\\?%|(?i:per\s?cent|pct|prozent|pour\s?cent|por\s?ciento)\b))?
    """,
    re.VERBOSE,
)
# fmt: on
_PART = rf"(?:\{{\s*([-\d.,{_GROUP}]+)\s*\}}|(\d))"
_FRACTION = re.compile(rf"\\[dtc]?frac\s*{_PART}\s*{_PART}")
_SUPERSCRIPTS = re.compile("(?<=\\d)[\u207a\u207b]?[\xb2\xb3\xb9\u2070\u2074-\u2079]+")
_GROUP_MARK = re.compile(
    r"(?<=\d)(?:[\xa0\u2007\u2009\u202f'\u2019_~]|\\[,;:]|\{\\,\}|\\thinspace\s?)(?=\d{3}(?!\d))"
)
_SYMBOLIC_BEFORE = re.compile(r"(?:\\sqrt\s*(?:\[\d*\])?\s*\{?|\u221a\(?|\bsqrt\()\s*$")
_SYMBOLIC_AFTER = re.compile(
    r"\s*(?:\\cdot|\\times|\*|\xb7)?\s*(?:\\pi\b|\u03c0|\\sqrt|\u221a|pi\b|sqrt\b)"
)
_WORD = re.compile(
    rf"\b(?:{_SCALE})\b|"
    r"\b(?:zero|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six"
    r"|seven|eigh|nine)teen|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|dozen|half)\b|^\W*one\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Number:
    """A number in a text, with all values that it may stand for."""

    values: tuple[float, ...]
    """Ordered from the most to the least likely; empty if the number cannot be read."""

    is_percent: bool = False
    listed: float | None = None
    """The last value, if a comma may separate two numbers: `2,5`."""

    def equals(self, other: Number) -> bool | None:
        """Return whether both are the same number; None if only some of their values are equal."""
        if not self.values or not other.values:
            return None
        if self._is_close(self.values[0], other.values[0], other):
            return True
        # Two commas have the same meaning: `2,5` and `3,5` do not both end with the number 5.
        mine = self.possible(with_listed=other.listed is None)
        theirs = other.possible(with_listed=self.listed is None)
        agrees = any(self._is_close(a, b, other) for a, b in product(mine, theirs))
        return None if agrees else False

    def possible(self, *, with_listed: bool) -> tuple[float, ...]:
        """Return all its values; `with_listed` adds the last value of a possible list."""
        return (
            self.values if self.listed is None or not with_listed else (*self.values, self.listed)
        )

    def _is_close(self, mine: float, theirs: float, other: Number) -> bool:
        if math.isclose(mine, theirs, rel_tol=1e-6):
            return True
        if self.is_percent == other.is_percent:
            return False
        share, plain = (mine, theirs) if self.is_percent else (theirs, mine)
        return math.isclose(share / 100, plain, rel_tol=1e-6)


UNREADABLE = Number(())


def last_number(text: str) -> Number | None:
    """Return the last number in a text; None if there is none.

    A number in words, a root or a multiple of pi is returned as a number that cannot be read.
    """
    text = _plain(text)
    match = None
    for match in _NUMBER.finditer(text):  # noqa: B007  (the last one)
        pass
    if match is None:
        return UNREADABLE if _WORD.search(text) or any(map(_is_numeral, text)) else None
    if _SYMBOLIC_AFTER.match(text, match.end()) or _SYMBOLIC_BEFORE.search(
        text[max(0, match.start() - 20) : match.start("number")]
    ):
        return UNREADABLE
    return _number(match)


def _is_numeral(char: str) -> bool:
    """Return whether a character is a number but not a digit, such as a Chinese or Roman one."""
    return unicodedata.numeric(char, None) is not None and not char.isdecimal()


def _plain(text: str) -> str:
    """Return a text with one notation for fractions, powers and certain group marks."""
    text = _GROUP_MARK.sub(_GROUP, text).replace("{,}", ",").replace(r"\!", "")
    text = _SUPERSCRIPTS.sub(lambda m: f"^{unicodedata.normalize('NFKC', m[0])}", text)
    text = normalize_characters(text)
    if not text.isascii():
        text = "".join(
            f" {unicodedata.normalize('NFKC', c)}"
            if unicodedata.decomposition(c).startswith("<fraction>")
            else c
            for c in text
        ).replace("\u2044", "/")
    return _FRACTION.sub(lambda m: f" {m[1] or m[2]}/{m[3] or m[4]}", text)


def _number(match: re.Match[str]) -> Number | None:
    readings = list(_readings(match["number"]))
    if not readings:
        return UNREADABLE
    base_power = int((match["exponent"] or match["power"] or "0").replace("\u2212", "-")[:9])
    powers = [base_power + power for power in _powers(match)]
    values = [float(f"{reading}e{power}") for power, reading in product(powers, readings)]
    if match["raised"]:
        values = [*(_raised(v, match["raised"]) for v in values), *values]
    if match["divisor"] is not None:
        values = _divided(values, match)
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    listed = _listed(match["number"]) if not match["divisor"] and not any(powers) else None
    signs = "".join(match[name] or "" for name in ("sign", "sign_word", "sign_after"))
    if signs.strip() not in ("", "+"):
        values = [-value for value in values]
    return Number(tuple(dict.fromkeys(values)), match["percent"] is not None, listed)


def _readings(numeral: str) -> Iterator[str]:
    """Yield the numbers that a numeral may stand for, as plain decimals, the most likely first."""
    if " " in numeral:
        yield from _readings(numeral.replace(" ", _GROUP))
        yield from _readings(numeral.rpartition(" ")[2])
        return
    marks = _MARKS.findall(numeral)
    if not marks:
        yield numeral
        return
    kinds = list(dict.fromkeys(marks))
    head, mark, tail = numeral.rpartition(marks[-1])
    if len(kinds) == 1 and mark != _DECIMAL:
        grouped = _ungrouped(numeral, mark)
        is_decimal = len(marks) == 1 and mark != _GROUP
        decimal = [f"{head or 0}.{tail}"] if is_decimal else []
        if grouped is None or (is_decimal and head.startswith("0")):
            yield from decimal or _last_part(numeral, mark)
        else:
            yield from [grouped, *decimal] if mark == "," else [*decimal, grouped]
        return
    whole = head if head.isdigit() or not head else _ungrouped(head, kinds[0])
    if whole is not None and marks.count(mark) == 1 and mark != _GROUP:
        yield f"{whole or 0}.{tail}"
    elif "," in marks:
        yield from _readings(numeral.rpartition(",")[2])


def _ungrouped(numeral: str, mark: str) -> str | None:
    pattern = _GROUPS.get(mark)
    is_grouped = pattern is not None and pattern.fullmatch(numeral)
    return numeral.replace(mark, "") if is_grouped else None


def _last_part(numeral: str, mark: str) -> Sequence[str]:
    """Return the last number of a list or of a date."""
    if mark == "," or _DATE.fullmatch(numeral):
        return [numeral.rpartition(mark)[2]]
    return []


def _listed(numeral: str) -> float | None:
    _, comma, tail = numeral.rpartition(",")
    return float(tail) if comma and tail.isdecimal() else None


def _powers(match: re.Match[str]) -> list[int]:
    """Return the powers of ten that the words and letters after a number may stand for."""
    powers = [0]
    for word in re.findall(rf"(?i:{_SCALE})(?!{_LETTER})", match["scale"]):
        factors = next(f for words, f in _SCALES if re.fullmatch(words, word, re.IGNORECASE))
        powers = [power + factor for factor in factors for power in powers]
    if suffix := match["suffix"]:
        is_certain = bool(match["currency"]) or len(suffix) > 1
        powers = [*([] if is_certain else powers), *(p + _SUFFIXES[suffix] for p in powers)]
    return powers


def _raised(value: float, exponent: str) -> float:
    try:
        return float(value ** int(exponent.replace("\u2212", "-")))
    except (OverflowError, ZeroDivisionError):
        return math.inf


def _divided(values: Sequence[float], match: re.Match[str]) -> list[float]:
    divisors = [float(reading) for reading in _readings(match["divisor"])]
    if match.string[match.start() - 1 : match.start()] == "/":  # a date, not a fraction
        return divisors
    shares = [v / divisor if divisor else math.inf for v, divisor in product(values, divisors)]
    if match["whole"] is None:
        return shares
    return [*(int(match["whole"]) + share for share in shares), *shares]
