"""Texts side by side: what counts as the same, as JSON too; and vectors that stand for texts."""

from __future__ import annotations

import re
import string
import unicodedata

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_PER_MILLE = "\u2030\u2031"  # without them it would be another number
_RAISED = ("<super>", "<sub>", "<fraction>")


def normalize_answer(text: str) -> str:
    """Return a text in lower case without punctuation, articles and extra spaces (SQuAD).

    What would leave nothing is not done: the answer `A` is no article, `+` no punctuation.
    """
    text = " ".join(normalize_characters(text).casefold().split())
    bare = text.translate(_PUNCTUATION)
    if not bare.isascii():
        bare = "".join(c for c in bare if unicodedata.category(c)[0] != "P" or c in _PER_MILLE)
    bare = " ".join(bare.split())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split()) or bare or text


def normalize_characters(text: str) -> str:
    """Return a text in the usual shape of its characters (NFKC), and with `-` for a minus.

    What is raised, and a fraction, stays as it is: ten squared is not 102.
    """
    if text.isascii():
        return text
    shaped = (
        c if unicodedata.decomposition(c).startswith(_RAISED) else unicodedata.normalize("NFKC", c)
        for c in text.replace("\u2212", "-")
    )
    return unicodedata.normalize("NFC", "".join(shaped))


# llama.cpp and vLLM apply a chat template to the messages and then read the marks of the whole
# text, those in a message, too; hosted models mostly take them for text.
MARK = re.compile(
    r"""<(?=[|｜])                                                    # <|im_start|>, <｜User｜>
    |<(?=/?(?:s|bos|eos|pad|unk|mask|sop|eop|eoh|eoa|think|tools?|tool_call|tool_response
         |(?:start|end|beginning)_of_[a-z]+|fim_[a-z]+|(?:seed|minimax):[a-z_]+
         |(?:__)?(?:media|image|img|audio|video)(?:__)?
         |(?:unused|reserved_|extra_id_)\d+)>)
    |<(?=(?:turn|channel|tool|tool_call|tool_response|image|audio|video)\|>)
    |<(?=</?SYS>>)
    |<(?=(?-i:role>(?:HUMAN|ASSISTANT|SYSTEM|OBSERVATION)</role>))              # Ling
    |\[(?=\|(?:endofturn|user|assistant|system|tool)\|\])                 # EXAONE
    |\](?=~b\]|~!b\[|![pd]~\[)|\[(?=e~\[)                                # MiniMax
    |\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT
         |gMASK|sMASK|UNUSED_TOKEN_\d+|THINK|IMG|PREFIX|SUFFIX|MIDDLE)\])
    """,  # noqa: RUF001  (DeepSeek's marks have full-width bars)
    re.VERBOSE | re.IGNORECASE,
)
"""The begin of a chat template's mark, such as the `<` of `<|im_start|>`."""


def break_template_marks(text: str) -> str:
    """Return a text in which a space behind its first character breaks each template's mark."""
    return MARK.sub(lambda mark: f"{mark[0]} ", text)


def quote_lines(text: str) -> str:
    """Return a text with a mark before each line, so that none passes for a line of the prompt.

    Nor does anything in it pass for a mark of a chat template.
    """
    return "\n".join(f"> {line}" for line in break_template_marks(text).strip().splitlines())


# All control characters but line ends and tabs, marks of direction, and halves of pairs.
_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text with what a terminal would obey written out, such as `\x1b`."""
    return _COMMANDS.sub(lambda found: ascii(found[0])[1:-1], text)


def escape_rich(text: str) -> str:
    """Return a text as rich's markup that shows it as it is, nothing in it obeyed."""
    from rich.markup import escape  # noqa: PLC0415  (the command line works without rich)

    return escape(printable(text))
