"""The words of the few-shot self-check, and the strict reading of its verdicts.

The form is the paper's (AutoMix, section 4.1 and listing 1): a context, a question and an
answer, judged by entailment from the context; a sentence of reasoning, then the verdict. The
examples are our own. They are balanced, three accepts and three rejects, so that the model
learns no leaning from them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from langchain_automix.types import Verdict

INSTRUCTION = (
    "You check answers that an AI generated. Judge only by the context: an answer is correct "
    "if the context entails that it answers the question, completely and without adding "
    "anything false. If the context does not hold the answer, then only an answer which says "
    "so is correct. Write one short sentence of reasoning. Then write the verdict on a line "
    "of its own, exactly as 'Verification Decision: Correct' or "
    "'Verification Decision: Incorrect'."
)

NO_CONTEXT = "(none was given: judge by what is generally known)"
BEFORE = "What was said before the question:"
CONVERSATION = "(none was given: judge by this conversation and by what is generally known)"
TOOLS = (
    "The answering AI had the tools below. Its answer may be a tool call, shown as "
    "'[calls NAME with ARGUMENTS]'. A tool call is correct if calling this tool with these "
    "arguments is the right next step, and the arguments follow from the conversation."
)
ONLY_ATTACHED = "(only what is attached)"


class Example(NamedTuple):
    """One worked check."""

    context: str
    question: str
    answer: str
    reasoning: str
    correct: bool


EXAMPLES = (
    Example(
        context="The ferry Halcyon was built in Turku in 1931. She carried passengers to "
        "Mariehamn until 1958, when the steamer Vesta took over the route.",
        question="Which ship replaced the Halcyon?",
        answer="the Vesta",
        reasoning="The context says that the steamer Vesta took over the route in 1958.",
        correct=True,
    ),
    Example(
        context="Ada Lindqvist planted the orchard in 1902 and her son Emil added the walled "
        "garden in 1927. The glasshouse was a gift of the botanist Jonas Berg.",
        question="Who added the walled garden?",
        answer="Jonas Berg",
        reasoning="The context says that Emil added the walled garden; Jonas Berg gave the "
        "glasshouse.",
        correct=False,
    ),
    Example(
        context="Basalt columns form when thick lava cools slowly from the surface downward. "
        "Most columns have six sides.",
        question="When was the first basalt column described?",
        answer="The context does not say.",
        reasoning="The context holds no date of a description, and the answer says so.",
        correct=True,
    ),
    Example(
        context="The choir rehearses on Mondays and Thursdays. On Thursdays the orchestra joins.",
        question="On which days does the choir rehearse?",
        answer="Mondays",
        reasoning="The context names Mondays and Thursdays, so the answer is only partly right.",
        correct=False,
    ),
    Example(
        context="The museum opened in 1974 in a former salt warehouse. Ten years later it moved "
        "to the old railway station, where it still is.",
        question="In what year did the museum move?",
        answer="1984",
        reasoning="The museum opened in 1974 and moved ten years later, which is 1984.",
        correct=True,
    ),
    Example(
        context="Saffron comes from the stigmas of a crocus. It takes some 150 flowers to make "
        "one gram of the dried spice.",
        question="Which country grows the most saffron?",
        answer="Iran",
        reasoning="The context names no country, so it does not entail the answer.",
        correct=False,
    ),
)


class Asked(NamedTuple):
    """What an answer is checked against."""

    question: str
    context: str | None = None
    """What the answer must follow from."""

    conversation: str | None = None
    """What was said around the question; beside a context, what was said before it."""

    tools: str | None = None
    """The tools that the answering model had, one a line."""

    def shortened(self, shorten: Callable[[str], str]) -> Asked:
        """Return the same with context and conversation shortened."""
        return self._replace(
            context=self.context and shorten(self.context),
            conversation=self.conversation and shorten(self.conversation),
        )

    @property
    def shown(self) -> str:
        """What stands as the context in the check."""
        # The tools come first: they are the same for many questions (see `_block`).
        tools = f"{TOOLS}\n{self.tools}\n\n" if self.tools else ""
        if self.conversation and self.context:
            return f"{tools}{self.context}\n\n{BEFORE}\n{self.conversation}"
        if self.conversation:
            return f"{tools}{CONVERSATION}\n{self.conversation}"
        return f"{tools}{self.context or NO_CONTEXT}"


def check_messages(
    asked: Asked, answer: str, attachments: Sequence[dict[str, Any]] = ()
) -> list[BaseMessage]:
    """Return the chat messages that ask a model to check one answer."""
    block = _block(asked.shown, asked.question, answer)
    # Plain text where nothing is attached: some servers take no list of blocks.
    content: Any = [{"type": "text", "text": block}, *attachments] if attachments else block
    return [*_opening(), HumanMessage(content)]


@functools.cache
def _opening() -> tuple[BaseMessage, ...]:
    """Return what every check starts with: the instruction and the examples."""
    messages: list[BaseMessage] = [SystemMessage(INSTRUCTION)]
    for example in EXAMPLES:
        messages += [
            HumanMessage(_block(example.context, example.question, example.answer)),
            AIMessage(f"{example.reasoning}\n{_verdict_line(correct=example.correct)}"),
        ]
    return tuple(messages)


def _block(context: str, question: str, answer: str) -> str:
    # The context comes first: questions on the same passage then share the longest prefix,
    # which providers and local servers serve from their prompt caches.
    return (
        f"Context: {context}\n\nQuestion: {question}\n\nAI Generated Answer: {answer}\n\n"
        "Is the AI Generated Answer correct?"
    )


def _verdict_line(*, correct: bool) -> str:
    return f"Verification Decision: {'Correct' if correct else 'Incorrect'}"


# Only a whole line counts: "not correct", "correct or incorrect" and quoted text do not.
_VERDICT_LINE = re.compile(
    r"[\W_]*verification decision\W*(?:the ai[ -]generated answer is\W*)?"
    r"(?P<verdict>correct|incorrect)[\W_]*",
    re.IGNORECASE,
)


def parse_verdict(reply: str) -> Verdict:
    """Read the verdict of a check: True accept, False reject, None invalid.

    The last line that is not blank must be the verdict and nothing else. A reply whose
    verdict lines contradict each other is invalid.
    """
    lines = [line for line in reply.splitlines() if line.strip()]
    verdicts = [match for line in lines if (match := _VERDICT_LINE.fullmatch(line))]
    if not verdicts or _VERDICT_LINE.fullmatch(lines[-1]) is None:
        return None
    said = {match["verdict"].lower() for match in verdicts}
    return said == {"correct"} if len(said) == 1 else None
