"""Checks that use no model: a schema, a pattern, a function of the user's."""

from __future__ import annotations

import json
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.utils.function_calling import convert_to_json_schema
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import override

from langchain_automix.errors import AutoMixError
from langchain_automix.flow.steps import Call, Steps, call
from langchain_automix.models.failures import is_fault
from langchain_automix.models.tools import parsing_problem, schema_misfit
from langchain_automix.types import Verification
from langchain_automix.utils.check_spec import CheckSpec, spec_of_code
from langchain_automix.utils.fingerprints import repr_hash, stable_name
from langchain_automix.utils.json_values import find_json
from langchain_automix.verifiers.base import Verifier, VerifierInput
from langchain_automix.verifiers.inputs import answer_words

_NOT_AWAITED = "Cannot invoke a coroutine function synchronously"


class _TextVerifier(Verifier):
    """A check that reads only the answer's text."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        yield from ()
        text = answer_words(input["answer"])
        return text if isinstance(text, Verification) else self._check(text)

    @abstractmethod
    def _check(self, text: str) -> Verification: ...


class SchemaVerifier(_TextVerifier):
    """Check that the answer is JSON that fits a schema.

    It gives one verdict, and `replies` says what does not fit, without the value. JSON in a fenced
    block is accepted. The check is free. To make sure that an unfit answer is never kept, use
    `with_structured_output` instead.

    ??? example "An invoice must have a number and a total"

        ```python
        from langchain_automix import SchemaVerifier

        schema = {
            "type": "object",
            "required": ["number", "total"],
            "properties": {"total": {"type": "number", "minimum": 0}},
        }
        print(SchemaVerifier(schema=schema).invoke({"answer": '{"number": "A7"}'}).verdicts)
        ```
    """

    definition: type | Mapping[str, Any] = Field(alias="schema")
    """A JSON schema, which may only refer to its own parts; a pydantic class, with its validators;
    or a TypedDict class."""

    @model_validator(mode="before")
    @classmethod
    def _accept_field_name(cls, fields: Any) -> Any:
        """Accept the output of LangChain's `dumpd`, which uses the field's name, not its alias."""
        if not isinstance(fields, Mapping) or "definition" not in fields:
            return fields
        return {"schema" if name == "definition" else name: each for name, each in fields.items()}

    @field_validator("definition")
    @classmethod
    def _validate_schema(cls, definition: Any) -> Any:
        if is_basemodel_subclass(definition):
            return definition
        schema = convert_to_json_schema(definition) if isinstance(definition, type) else definition
        if not schema:
            raise AutoMixError("The schema is empty: every JSON value fits it.")
        try:
            schema_misfit(None, schema)
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise AutoMixError(
                f"The schema cannot be used: {reason}. It must be a valid JSON schema, and refer "
                "only to its own parts."
            ) from error
        return schema

    @property
    def fingerprint(self) -> str:
        """Short hash of the schema."""
        return repr_hash([type(self).__name__, self._json_schema])

    @cached_property
    def _json_schema(self) -> Mapping[str, Any]:
        if isinstance(self.definition, type):
            return convert_to_json_schema(self.definition)
        return self.definition

    @override
    def _check(self, text: str) -> Verification:
        parsed = find_json(text)
        if parsed is None:
            return Verification(verdicts=(False,), replies=("the answer is no JSON",))
        try:
            misfit = self._misfit(parsed[0])
        except Exception as error:  # noqa: BLE001  (an unknown reference, a bad pattern)
            return Verification(problem=f"the schema cannot be used ({type(error).__name__})")
        return Verification(verdicts=(misfit is None,), replies=(misfit or "the answer fits",))

    def _misfit(self, value: Any) -> str | None:
        if not isinstance(self.definition, type):
            return schema_misfit(value, self.definition)
        if issubclass(self.definition, BaseModel):
            try:
                self.definition.model_validate_json(json.dumps(value))
            except ValueError as error:
                return parsing_problem(error, self._json_schema)
        return None


class PatternVerifier(_TextVerifier):
    r"""Check that the answer matches a regular expression.

    It gives one verdict. Use only patterns that you wrote yourself: Python's `re` has no time
    limit, and nested repetitions such as `(a+)+b` practically never end on thirty letters.
    `max_length` helps only with moderately slow patterns.

    ??? example "The answer is a date"

        ```python
        from langchain_automix import PatternVerifier

        PatternVerifier(pattern=r"\d{4}-\d{2}-\d{2}").invoke({"answer": "1931-05-02"})
        ```
    """

    pattern: str
    """The regular expression, in Python's syntax, with inline flags such as `(?i)`."""

    whole: bool = True
    """Whether the whole answer must match, ignoring surrounding white space, or any part of it."""

    max_length: int = Field(default=2_000, ge=1)
    """Maximum length of an answer to check, in characters; the check is unknown for longer ones."""

    @field_validator("pattern")
    @classmethod
    def _validate_pattern(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise AutoMixError(f"The pattern is no regular expression: {error}.") from error
        return pattern

    @property
    def fingerprint(self) -> str:
        """Short hash of the pattern."""
        return repr_hash([type(self).__name__, self.pattern, self.whole, self.max_length])

    @override
    def _check(self, text: str) -> Verification:
        if len(text) > self.max_length:
            return Verification(
                problem=f"the answer is longer than the {self.max_length} characters that the "
                "pattern is tried on"
            )
        match = re.fullmatch if self.whole else re.search
        return Verification(verdicts=(match(self.pattern, text) is not None,))


class FunctionVerifier(Verifier):
    """Check an answer with a function of your own.

    The function gets the answer's text or the whole input. It returns a truth value (one verdict),
    a number in [0, 1] (a score), None (an invalid verdict) or a `Verification`. If it raises an
    error or returns anything else, the check is unknown and its `problem` says so. The text of the
    error, which may quote the answer, appears only in the trace.

    ??? example "Run the code that the model wrote"

        ```python
        from langchain_automix import FunctionVerifier


        def compiles(answer: str) -> bool:
            try:
                compile(answer, "answer", "exec")
            except SyntaxError:
                return False
            return True


        print(FunctionVerifier(function=compiles).invoke({"answer": "1 +"}).verdicts)
        ```
    """

    function: Callable[..., Any]
    """The function; an async one works only with `ainvoke`, `abatch` and `astream`."""

    takes: Literal["answer", "input"] = "answer"
    """The function's argument. `answer`: the text, without tool calls. `input`: the
    `VerifierInput`."""

    model_config = ConfigDict(extra="forbid")

    @property
    @override
    def check_spec(self) -> CheckSpec:
        """The name of the function, since a file cannot hold more of it."""
        return spec_of_code(self.function, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        """Short hash of the function with its code, and of its kind of argument."""
        return repr_hash([type(self).__name__, stable_name(self.function), self.takes])

    @property
    def _name(self) -> str:
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @override
    def _flow(self, input: VerifierInput, **kwargs: Any) -> Steps[Verification]:
        answer = input["answer"]
        text = str(answer.text if isinstance(answer, BaseMessage) else answer)
        argument: Any = text if self.takes == "answer" else input
        try:
            asked = Call(RunnableLambda(self.function), argument, run_name=self._name)
            found = yield from call(asked)
        except Exception as error:
            if isinstance(error, TypeError) and str(error).startswith(_NOT_AWAITED):
                raise AutoMixError(
                    f"FunctionVerifier has an async function, {self._name}: call it, and the "
                    "mix it is in, asynchronously (ainvoke, abatch, astream)."
                ) from error
            if not isinstance(error, AutoMixError) and not is_fault(error):
                raise  # an interrupt from LangGraph
            return Verification(problem=f"{self._name} raised {type(error).__name__}")
        return self._verification(found)

    def _verification(self, result: Any) -> Verification:
        if type(result).__module__ == "numpy" and hasattr(result, "item"):
            result = result.item()
        if isinstance(result, Verification):
            return result
        if result is None or isinstance(result, bool):
            return Verification(verdicts=(result,))
        if not isinstance(result, int | float):
            kind = type(result).__name__
            problem = (
                f"{self._name} returned {kind}, not a truth value, number, None or Verification"
            )
            return Verification(problem=problem)
        if math.isnan(result) or not 0 <= result <= 1:
            return Verification(problem=f"{self._name} returned {result}, no score in [0, 1]")
        return Verification(score=result)
