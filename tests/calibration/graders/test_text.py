"""Graders of texts, and whatever else a user may give for one."""

from __future__ import annotations

import json
import re
import string
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from langchain_automix import AutoMixError
from langchain_automix.calibration.graders.choices import chosen_letter
from langchain_automix.calibration.graders.text import (
    GRADERS,
    accepted_answers,
    contains,
    exact_match,
    json_equal,
    multiple_choice,
    numeric,
    token_f1,
)
from langchain_automix.utils.text import normalize_answer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    'ab c12.,-%/()ABthe\n`{}[]":', max_size=30
)


class TestEveryGrader:
    @given(st.sampled_from(sorted(GRADERS)), TEXTS, st.lists(TEXTS, max_size=3))
    def test_grades_lie_between_0_and_1(
        self, name: str, answer: str, references: list[str]
    ) -> None:
        quality = GRADERS[name](answer, references)
        assert quality is None or 0 <= quality <= 1
        if not references:
            assert quality is None

    @given(st.sampled_from(sorted(GRADERS)), TEXTS, st.lists(TEXTS, max_size=3))
    def test_the_best_over_the_accepted(
        self, name: str, answer: str, references: list[str]
    ) -> None:
        alone = [GRADERS[name](answer, [reference]) for reference in references]
        best = max((grade for grade in alone if grade is not None), default=None)
        together = GRADERS[name](answer, references)
        # An answer that may equal one of them is not wrong because it differs from another.
        assert together == best or (together is None and None in alone and best == 0)

    @given(st.sampled_from(["exact_match", "f1"]), TEXTS, TEXTS)
    def test_symmetric(self, name: str, one: str, other: str) -> None:
        assert GRADERS[name](one, [other]) == GRADERS[name](other, [one])

    @given(st.sampled_from(["numeric", "multiple_choice", "json_equal"]), TEXTS, TEXTS)
    def test_symmetric_where_both_are_known(self, name: str, one: str, other: str) -> None:
        there, back = GRADERS[name](one, [other]), GRADERS[name](other, [one])
        assert there == back or None in (there, back)

    @given(st.sampled_from(sorted(GRADERS)), TEXTS)
    def test_an_answer_equals_itself(self, name: str, text: str) -> None:
        assert GRADERS[name](text, [text]) in (1.0, None)

    @pytest.mark.parametrize(
        "part",
        [
            "1",
            "1,",
            "1/",
            "A ",
            " ",
            "```\n",
            "answer ",
            "-",
            "[",
            "\\frac{",
            "1x10^",
            "(",
            "1 111 ",
            "1.1,",
            "京",
            "1^",
            "million ",
        ],
    )
    def test_long_answers_take_no_long_time(self, part: str) -> None:
        for answer in (part * 20_000, f"answer{part * 20_000}!"):
            started = time.thread_time()  # of this thread's own work, however busy the machine is
            for grader in GRADERS.values():
                grader(answer, ["B 1"])
            assert time.thread_time() - started < 3


class TestWords:
    @given(TEXTS, TEXTS)
    def test_f1_is_1_for_the_same_words_only(self, one: str, other: str) -> None:
        same = Counter(normalize_answer(one).split()) == Counter(normalize_answer(other).split())
        assert (token_f1(one, [other]) == 1) is same

    def test_what_would_leave_nothing_is_kept(self) -> None:
        assert exact_match("A.", ["A"]) == 1
        assert exact_match("the", ["a"]) == 0
        assert exact_match("+", ["-"]) == 0
        assert exact_match("", ["..."]) == 0

    def test_a_number_keeps_its_point_and_sign(self) -> None:
        assert exact_match("2.5", ["25"]) == exact_match("-5", ["5"]) == 0
        assert exact_match("1.5 m", ["15 m"]) == exact_match("10-12", ["1012"]) == 0
        assert exact_match("$1,234.", ["1234"]) == exact_match("Feb. 5", ["feb 5"]) == 1

    @given(st.text(st.characters(codec="ascii"), max_size=40))
    def test_plain_english_is_taken_as_squad_takes_it(self, text: str) -> None:
        bare = "".join(c for c in text.lower() if c not in string.punctuation)
        squad = " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
        assert normalize_answer(text) == squad or not squad

    @pytest.mark.parametrize(
        ("answer", "reference", "grade"),
        [
            ("C'était à Paris\xa0; «\xa0l\u2019été\xa0».", "L'été", 1.0),
            ("答案是 \u300c巴黎\u300d\u3002", "巴黎", 1.0),
            ("It was built in Turku, in 1931.", "turku", 1.0),
            ("It was built in Turkumaa.", "Turku", 0.0),
            ("The old tower of Turku.", "the tower of Turku", 1.0),
            ("The tower of old Turku.", "tower of Turku", 0.0),
            ("Turku", "", None),
            ("答案是北京。", "北京", 1.0),
            ("答案是上海。", "北京", 0.0),
            ("答案是Paris吧", "Paris", 1.0),
            ("答案是十三", "三", 0.0),
            ("東京都", "京", None),
            ("คำตอบคือกรุงเทพ", "กรุงเทพ", 1.0),
            ("การ", "กา", None),
            ("수도는 서울입니다.", "서울", 1.0),
            ("서울대학교", "서울", None),
            ("동서울", "서울", None),
        ],
    )
    def test_contains(self, answer: str, reference: str, grade: float | None) -> None:
        assert contains(answer, [reference]) == grade

    def test_f1_without_spaces_between_words(self) -> None:
        assert token_f1("答案是北京", ["北京"]) == pytest.approx(4 / 7)
        assert token_f1("北京。", ["北京"]) == 1


class TestNumeric:
    @pytest.mark.parametrize(
        ("answer", "reference", "grade"),
        [
            ("It is 1,234.5.", "1234.5", 1.0),
            ("3 + 4 = 7", "7", 1.0),
            ("#### 18", "18.0", 1.0),
            ("$1,000,000", "1e6", 1.0),
            ("2.5 x 10^3 m", "2500", 1.0),
            (r"\frac{3}{4}", "0.75", 1.0),
            ("3/4", ".75", 1.0),
            ("-$5", "-5", 1.0),
            ("$-5", "-5", 1.0),
            ("\u22125", "-5", 1.0),
            ("5", "-5", 0.0),
            ("50%", "50", 1.0),
            ("50%", "0.5", 1.0),
            ("0.5", "50 %", 1.0),
            ("0.5%", "50%", 0.0),
            ("10-12", "12", 1.0),
            ("on 5/6/2024", "2024", 1.0),
            ("In Q4", "4", 0.0),
            ("none", "4", 0.0),
            ("4", "four", None),
            ("1/0", "1", 0.0),
            ("1000001", "1000000", 1.0),
            ("100001", "100000", 0.0),
            ("1e999", "1e998", None),
            ("0", "0.0", 1.0),
        ],
    )
    def test_numbers(self, answer: str, reference: str, grade: float | None) -> None:
        assert numeric(answer, [reference]) == grade

    @pytest.mark.parametrize(
        ("answer", "reference", "grade"),
        [
            ("2,5", "3,5", 0.0),
            ("2,5", "2.5", 1.0),
            ("2,5", "5", None),  # a list of two numbers, or one of them
            ("1,2,3", "3", 1.0),
            ("$9{,}500", "9500", 1.0),
            (r"$9\,500$", "9500", 1.0),
            ("1.234", "1,234", None),
            ("1.234,5", "1234.5", 1.0),
            ("1.234.567", "1234567", 1.0),
            ("1 234,56", "1234.56", 1.0),
            ("1\u202f234", "1234", 1.0),
            ("10 200", "200", None),
            ("1'234", "1234", 1.0),
            ("1_000_000", "1e6", 1.0),
            ("12,34,567", "1234567", 1.0),
            ("0,123", "0.123", 1.0),
            ("\uff12\uff0e\uff15", "2.5", 1.0),
            ("\u0662\u066b\u0665", "2.5", 1.0),
            ("2.5 million", "2500000", 1.0),
            ("2,5 Mio. Euro", "2500000", 1.0),
            ("1.5 hundred thousand", "150000", 1.0),
            ("5 lakh", "500,000", 1.0),
            ("3万", "30000", 1.0),
            ("5 billion", "5e9", 1.0),
            ("5 billion", "5e12", None),
            ("$5k", "5000", 1.0),
            ("5k", "5000", None),
            ("5 m", "5", 1.0),
            ("USD500", "500", 1.0),
            ("R$ 1.234,50", "1234.5", 1.0),
            ("minus 5", "-5", 1.0),
            ("50 percent", "0.5", 1.0),
            ("2 1/2", "2.5", 1.0),
            ("2\xbd", "2.5", 1.0),
            (r"2\frac{1}{2}", "2.5", 1.0),
            (r"\frac12", "0.5", 1.0),
            ("10^6", "1000000", 1.0),
            ("10\xb2", "100", 1.0),
            ("25 m^2", "25", 1.0),
            ("25 m\xb2", "25", 1.0),
            ("05.06.2024", "2024", 1.0),
            ("1.2.3", "3", None),
            ("答案是42", "42", 1.0),
            ("답은42입니다", "42", 1.0),
            ("four", "4", None),
            ("四", "4", None),
            ("One.", "1", None),
            (r"5\pi", "15.7", None),
            (r"\sqrt{2}", "2", None),
            ("Q42", "2", 0.0),
        ],
    )
    def test_numbers_of_other_countries_and_forms(
        self, answer: str, reference: str, grade: float | None
    ) -> None:
        assert numeric(answer, [reference]) == grade

    def test_an_answer_that_may_be_right_is_not_wrong(self) -> None:
        assert numeric("1.234", ["7", "1,234"]) is None
        assert numeric("1.234", ["1,234", "1.234"]) == 1

    @given(
        st.integers(-(10**9), 10**9),
        st.sampled_from(["{}", "{:,}", "{}.00", "{:,}.0", "{:e}", "{:.12e}", "${:,}", "{} km."]),
        st.sampled_from(["{}", "So it is {}", "1 and 2 make **{}**", "({})", "{}\n"]),
    )
    def test_however_it_is_written(self, number: int, form: str, sentence: str) -> None:
        if form == "{:e}":
            number = number // 10**4 * 10**4  # so many digits has this form
            number = int(float(f"{number:.5e}"))
        written = sentence.format(form.format(number))
        assert numeric(written, [str(number)]) == 1
        assert numeric(str(number), [written]) == 1

    @given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
    def test_numbers_that_differ(self, one: float, other: float) -> None:
        near = abs(one - other) <= 1e-6 * max(abs(one), abs(other))
        assert numeric(repr(one), [repr(other)]) == float(near)


class TestMultipleChoice:
    @pytest.mark.parametrize(
        "answer",
        [
            *("B", "b", "(B)", "B.", "b)", "**B**", "[B]", r"\boxed{B}", "$B$"),
            *("The answer is B", "the answer is b.", "Answer: **B**", "Final answer: (B)"),
            *("B. Turku", "B) Turku, because (A) is older", "Option B is right", "I choose B"),
            *("I think B", "It is (B), I think.", "not A but B", "The answer is B, not A"),
            *("A is older than C was.\nSo the answer is: B", "The answer is: B", "Answer:\nB."),
            *(
                "Answer:\r\n\r\nB",
                "## Answer\n\n**B**",
                "Respuesta: B",
                "答案\uff1aB",
                "选择B选项",
                "\uff22",
            ),
        ],
    )
    def test_b_is_chosen(self, answer: str) -> None:
        assert chosen_letter(answer) == "B"
        assert multiple_choice(answer, ["B"]) == 1
        assert multiple_choice(answer, ["(C) Vaasa"]) == 0

    @pytest.mark.parametrize(
        "answer",
        ["The answer is: A", "Answer:\nA.", "Respuesta: A", "正确答案是A", "Answer: A because"],
    )
    def test_a_is_a_letter_too(self, answer: str) -> None:
        assert chosen_letter(answer) == "A"
        assert multiple_choice(answer, ["A"]) == 1

    @pytest.mark.parametrize("answer", ["A tower", "I think A is older"])
    def test_what_may_be_a_word_is_unknown(self, answer: str) -> None:
        assert multiple_choice(answer, ["A"]) is None
        assert multiple_choice(answer, ["B"]) == 0

    @pytest.mark.parametrize(
        "answer",
        [
            *("", "Turku", "A or B", "(A) and (B)", "Answer: A or B", "A. Turku\nB. Vaasa"),
            *("The answer is A. No, the answer is B.", "not B", "The answer is a tower", "U.S."),
        ],
    )
    def test_none_is_chosen(self, answer: str) -> None:
        assert chosen_letter(answer) is None
        assert multiple_choice(answer, ["A"]) == 0
        assert multiple_choice("A", [answer]) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)  # fmt: skip


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(each) for each in value] if isinstance(value, list) else value


class TestJson:
    @given(JSON, st.sampled_from(["{}", "```json\n{}\n```", "Here it is:\n```\n{}```\nDone."]))
    def test_the_order_of_keys_does_not_count(self, value: Any, around: str) -> None:
        answer = around.replace("{}", json.dumps(shuffled(value), indent=1))
        assert json_equal(answer, [json.dumps(value)]) == 1

    @given(JSON, JSON)
    def test_equal_values_only(self, one: Any, other: Any) -> None:
        same = one == other and json.dumps(one, sort_keys=True).replace(".0", "") == json.dumps(
            other, sort_keys=True
        ).replace(".0", "")
        found = json_equal(json.dumps(one), [json.dumps(other)])
        if same or one != other:
            assert found == float(same)

    @pytest.mark.parametrize(
        ("answer", "reference", "grade"),
        [
            ('{"a": 1.0}', '{"a": 1}', 1.0),
            ("100", "1e2", 1.0),
            ("0.1", "0.10000000000000001", 0.0),
            ("true", "1", 0.0),
            ("[1, 2]", "[2, 1]", 0.0),
            ("null", "null", 1.0),
            ("no JSON", "1", 0.0),
            ("NaN", "1", 0.0),
            ("1", "no JSON", None),
            ('```json\r\n{"a": 1}\r\n```', '{"a": 1}', 1.0),
            ('```json title="x.json"\n[1]\n```', "[1]", 1.0),
            ("\ufeff[1]", "[1]", 1.0),
            ("[" * 100_000, "1", 0.0),
        ],
    )
    def test_json(self, answer: str, reference: str, grade: float | None) -> None:
        assert json_equal(answer, [reference]) == grade


class TestAcceptedAnswers:
    @pytest.mark.parametrize(
        ("outputs", "reference", "accepted"),
        [
            ({"capital": "Rome"}, None, ["Rome"]),
            ({"capital": ["Rome", "Roma"]}, None, ["Rome", "Roma"]),
            ({"capital": "Rome", "answer": 5}, None, ["5"]),
            ({"capital": "Rome", "answer": 5}, "capital", ["Rome"]),
            ({"capital": None}, None, []),
            (
                {"messages": [{"role": "user", "content": "Where?"}, AIMessage("Rome")]},
                None,
                ["Rome"],
            ),
            ({"messages": [AIMessage("", tool_calls=[]), AIMessage("Rome")]}, None, ["Rome"]),
            ({"messages": [AIMessage("Let me see."), AIMessage("Rome")]}, None, ["Rome"]),
        ],
    )
    def test_which(
        self, outputs: dict[str, Any], reference: str | None, accepted: list[str]
    ) -> None:
        assert accepted_answers(outputs, reference) == accepted

    @pytest.mark.parametrize("outputs", [None, {}, {"a": 1, "b": 2}, {"a": [[1]]}])
    def test_not_clear_which(self, outputs: Any) -> None:
        with pytest.raises(AutoMixError, match="output"):
            accepted_answers(outputs)
