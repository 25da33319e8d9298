"""Normalise texts for comparison, quote them for a prompt, or make them safe for a terminal."""

from __future__ import annotations

import os
import re
import string
import unicodedata

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PER_MILLE = "\u2030\u2031"  # belongs to a number
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of scripts without spaces between words, for a character class in a regular
expression: Thai, Lao, Burmese, Khmer, Chinese, Japanese."""

_COMPOSED = ("<super>", "<sub>", "<fraction>")


def normalize_answer(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra spaces (SQuAD).

    A step that would leave nothing is skipped, so that the answers `A` and `+` stay as they are.
    """
    text = " ".join(normalize_characters(text).casefold().split())
    bare = text.translate(_PUNCTUATION)
    if not bare.isascii():
        bare = "".join(c for c in bare if unicodedata.category(c)[0] != "P" or c in _PER_MILLE)
    bare = " ".join(bare.split())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split()) or bare or text


_NUMERAL = re.compile(
    r"(?:(?<!\w)-)?(?:\d+(?:\.\d+)?|(?<![\w.])\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE
)


def numerals(text: str) -> list[str]:
    """Return the numbers in a text, with the signs and points that `normalize_answer` drops."""
    without_groups = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", normalize_characters(text))
    return [number.replace("+", "").casefold() for number in _NUMERAL.findall(without_groups)]


def normalize_characters(text: str) -> str:
    """Return a text in normal form (NFKC), with `-` for a minus sign.

    Superscripts, subscripts and fractions are kept, since ten squared is not 102.
    """
    if text.isascii():
        return text
    normalized = (
        c
        if unicodedata.decomposition(c).startswith(_COMPOSED)
        else unicodedata.normalize("NFKC", c)
        for c in text.replace("\u2212", "-")
    )
    return unicodedata.normalize("NFC", "".join(normalized))


# llama.cpp and vLLM apply a chat template and then interpret special tokens anywhere in the text,
# even inside a message. Hosted models mostly treat them as text.
MARK = re.compile(
    r"""<(?=[|｜])                                                    # <|im_start|>, <｜User｜>
    |<(?=/?(?:s|bos|eos|pad|unk|mask|sop|eop|eoh|eoa|think|tools?|tool_call|tool_response
         |(?:start|end|beginning)_of_[a-z]+|fim_[a-z]+|(?:seed|minimax):[a-z_]+
         |(?:__)?(?:media|image|img|audio|video)(?:__)?
         |(?:unused|reserved_|extra_id_)\d+)>)
    |<(?=(?:turn|channel|tool|tool_call|tool_response|image|audio|video)\|>)
    |<(?=</?SYS>>)
    |<(?=SPECIAL_\d+>|(?-i:/?TOOLCALL|/?TOOL_RESPONSE|/?AVAILABLE_TOOLS)>)    # Nemotron
    |<(?=(?:BOS|EOS|EOP|MASK|PAD|UNK|CLS|SEP)(?:_TOKEN)?>|eod>)                # Cohere, Reka, Yuan
    |<(?=用户>|(?-i:AI)>|(?-i:_(?:user|bot|system|start|end|pad))>)              # MiniCPM, TeleChat
    |<(?=(?-i:role>(?:HUMAN|ASSISTANT|SYSTEM|OBSERVATION)</role>))              # Ling
    |\[(?=\|(?:endofturn|user|assistant|system|tool|human|ai)\|\])        # EXAONE, Jais, BlueLM
    |\](?=~b\]|~!b\[|![pd]~\[)|\[(?=e~\[)                                # MiniMax
    |\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT
         |(?-i:ARGS|CALL_ID|MODEL_SETTINGS)|gMASK|sMASK|UNUSED_TOKEN_\d+|THINK|IMG|PREFIX|SUFFIX|MIDDLE)\])
    """,  # noqa: RUF001  (DeepSeek's marks have full-width bars)
    re.VERBOSE | re.IGNORECASE,
)
"""The beginning of a chat template's special token, such as the `<` of `<|im_start|>`."""


def break_template_marks(text: str) -> str:
    """Return a text in which each special token is broken by a space after its first character."""
    return MARK.sub(lambda mark: f"{mark[0]} ", text)


def quote_lines(text: str) -> str:
    """Return a text with `> ` before each line; it cannot pass for the prompt or a template."""
    return "\n".join(f"> {line}" for line in break_template_marks(text).strip().splitlines())


_APOSTROPHES = "\u2018\u2019\u02bc\u2032\xb4"
# What separates words: spaces of all widths, hyphens and dashes, but not line ends.
_WORD_BREAKS = "\t\x1f\xa0\u1680\u202f\u205f\u3000-_" + "".join(
    map(chr, [*range(0x2000, 0x200B), *range(0x2010, 0x2016)])
)
_IGNORED = frozenset({"Cf", "Mn"})


def as_read(text: str) -> str:
    """Return a text without what readers overlook: case, accents, letter shapes, word breaks.

    It has the lines of `text.splitlines()`, separated by line feeds.
    """
    text = "\n".join(text.splitlines())
    if not text.isascii():
        text = unicodedata.normalize("NFKD", _replace_each(_APOSTROPHES, "'", text))
        text = "".join(c for c in text if unicodedata.category(c) not in _IGNORED)
    return re.sub("  +", " ", _replace_each(_WORD_BREAKS, " ", text.casefold()))


def _replace_each(characters: str, by: str, text: str) -> str:
    # One by one, since a regular expression or `translate` takes a hundred times as long over a
    # megabyte, and blocks all other threads meanwhile, including those of event loops.
    for character in characters:
        text = text.replace(character, by)
    return text


# Control characters except line ends and tabs, direction marks, and lone surrogates.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with terminal control characters escaped, such as `\x1b`."""
    return _COMMANDS.sub(lambda match: ascii(match[0])[1:-1], text)


_SECRET_NAME = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
_MIN_SECRET = 8
# Prefixes of providers' keys, and keys in headers and URLs.
_SECRET = re.compile(
    r"""\b(?:sk|pk|gsk|xai|pplx|hf|lsv2|r8|nvapi|csk|fw)[-_][\w-]{12,}
    |\bAIza[\w-]{20,}
    |\bAKIA[A-Z0-9]{12,}
    |(?<=[Bb]earer[ ])[\w.~+/=-]{8,}
    |(?<=[?&]key=)[\w-]{8,}""",
    re.VERBOSE,
)


def redact_secrets(text: str) -> str:
    """Return a text without keys: neither those of the environment nor anything like a key."""
    secrets = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET and not secret.startswith("/"):  # a path is not a secret
            text = text.replace(secret, "***")
    return _SECRET.sub(lambda key: "***" if any(map(str.isdigit, key[0])) else key[0], text)


def escape_rich(text: str) -> str:
    """Return a text escaped for rich's markup and for the terminal."""
    from rich.markup import escape  # noqa: PLC0415  (the command line works without rich)

    return escape(printable(text))
