"""The words of a check in each language: what reads as a verdict, and what does not."""

# ruff: noqa: RUF001  (letters of other alphabets that look like Latin ones are the point here)

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, SystemMessage

from langchain_automix import AutoMixError, SelfVerifier, TokenProbabilityVerifier, Wording
from langchain_automix.verifiers.inputs import CheckContext
from langchain_automix.verifiers.prompting.messages import check_messages, follow_up_messages
from langchain_automix.verifiers.prompting.verdicts import parse_verdict
from langchain_automix.verifiers.prompting.wording import ENGLISH, folded
from langchain_automix.verifiers.token_probability import _mass
from tests.support.servers.openai_server import OpenAIServer

CODES = ("de", "en", "es", "fr", "zh")
WORDINGS = {code: Wording.of(code) for code in CODES}
ASKED: Any = {"context": "Gebaut 1931 in Turku.", "question": "Wo gebaut?", "answer": "Turku"}
both = st.booleans()
wordings = st.sampled_from([WORDINGS[code] for code in CODES])
anything = st.text(alphabet=st.characters(codec="utf-8"), max_size=40)


class TestLanguages:
    def test_a_code_names_a_wording(self) -> None:
        assert Wording.of("en") is ENGLISH is SelfVerifier().wording
        assert Wording.of("DE-at") is Wording.of("de") is SelfVerifier(wording="de").wording
        assert TokenProbabilityVerifier(wording="zh").wording.yes == "是"

    def test_an_unknown_language_is_an_error_that_names_the_known(self) -> None:
        with pytest.raises(AutoMixError, match="no wording for 'tlh'; there are: de, en, es, fr,"):
            Wording.of("tlh")
        with pytest.raises(ValueError, match="no wording for 'tlh'"):
            SelfVerifier(wording="tlh")

    def test_a_language_is_loaded_when_it_is_asked_for(self) -> None:
        code = (
            "import sys; from langchain_automix import SelfVerifier; SelfVerifier(); "
            "print([m for m in sys.modules if 'wordings' in m])"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert ran.stdout.strip() == b"[]"

    @pytest.mark.parametrize("code", CODES)
    def test_all_of_it_is_translated(self, code: str) -> None:
        wording = WORDINGS[code]
        if code != "en":
            english = {f.name for f in dataclasses.fields(Wording)} - {"colon", "filler"}
            same = {n for n in english if getattr(wording, n) == getattr(ENGLISH, n)}
            # Two words happen to be the same in another language.
            assert same <= {"question", "no"}
        assert len(wording.examples) == 6
        assert sum(example.correct for example in wording.examples) == 3
        for reply in ("reasoning", "verdict"):
            for correct in (True, False):
                assert wording.verdict_line(correct=correct) in wording.reply[reply]
        assert wording.yes in wording.reply["word"]
        assert wording.no in wording.reply["word"]

    @pytest.mark.parametrize("code", CODES)
    @pytest.mark.parametrize("reply", ["reasoning", "verdict"])
    def test_its_own_examples_parse_and_no_others(self, code: str, reply: Any) -> None:
        messages = check_messages(CheckContext("?"), "!", wording=WORDINGS[code], reply=reply)
        shown = [message.text for message in messages if isinstance(message, AIMessage)]
        correct = [example.correct for example in ENGLISH.examples]
        for other, wording in WORDINGS.items():
            read = [parse_verdict(text, wording) for text in shown]
            assert read == (correct if other == code else [None] * 6)

    def test_a_check_is_asked_and_read_in_its_language(self, server: OpenAIServer) -> None:
        replies = ["Urteil der Prüfung: Richtig", "Verification Decision: Correct", "Richtig"]
        server.script = lambda _: replies
        verifier = SelfVerifier(model=server.model("small"), wording="de", samples=3)
        assert verifier.invoke(ASKED).verdicts == (True, None, None)
        texts = [message["content"] for message in server.requests[0]["messages"]]
        assert "Frage: Wo gebaut?" in texts[-1]
        assert texts[0].startswith("Du prüfst Antworten")
        assert verifier.fingerprint != SelfVerifier().fingerprint

    @pytest.mark.parametrize("code", CODES)
    def test_all_layouts_are_in_its_language(self, code: str) -> None:
        wording, asked = WORDINGS[code], CheckContext("?", conversation="AI: Hm.", tools="- save")
        for messages in (
            check_messages(asked, "!", wording=wording, quoting="json"),
            follow_up_messages([SystemMessage("")], asked, "!", wording=wording),
        ):
            said = "\n".join(str(message.text) for message in messages)
            others = [each for each in WORDINGS.values() if each is not wording]
            for name in ("instruction", "follow_up", "ask", "data", "tools", "conversation"):
                assert not any(getattr(each, name) in said for each in others)

    @pytest.mark.parametrize(
        ("words", "problem"),
        [
            ({"accept": "Sí", "reject": "si\u0301"}, "two different words"),
            ({"yes": "Correct", "no": "correctly not"}, "one begins the other"),
            ({"yes": " "}, "two different words"),
            ({"label": "\t"}, "a label"),
        ],
    )
    def test_words_that_tell_no_verdict_are_refused(
        self, words: dict[str, str], problem: str
    ) -> None:
        with pytest.raises(AutoMixError, match=problem):
            dataclasses.replace(ENGLISH, **words)  # type: ignore[arg-type]


class TestStrictVerdicts:
    @pytest.mark.parametrize(
        ("code", "reply", "verdict"),
        [
            ("de", "Passt.\nUrteil der Prüfung: Richtig.", True),
            ("de", "Urteil der Pru\u0308fung: **falsch**", False),
            ("de", "Urteil der Prüfung: Die Antwort der KI ist falsch.", False),
            ("de", "Urteil der Prüfung: nicht richtig", None),
            ("de", "Urteil der Prüfung: richtig oder falsch", None),
            ("de", "Urteil der Prüfung: richtig oder nicht", None),
            ("de", "Urteil der Prufung: Richtig", None),
            ("fr", "Décision de la vérification\u00a0: Correcte", True),
            ("fr", "Décision de la vérification : pas correcte", None),
            (
                "fr",
                "Décision de la vérification : la réponse générée par l\u2019IA est correcte",
                True,
            ),
            ("fr", "Décision de la vérification : la réponse générée par lIA est correcte", None),
            ("fr", "Décision de la vérification : Incorrecte", False),
            ("es", "Decisio\u0301n de la verificación: Correcta", True),
            ("es", "Decisión de la verificación: No correcta", None),
            ("zh", "验证结论：正确。", True),
            ("zh", "验证结论: 错误", False),
            ("zh", "验证结论：不正确", None),
            ("zh", "验证结论：正确还是错误", None),
            ("zh", "驗證結論：正確", None),
            ("zh", "理由。验证结论：正确", None),
            ("en", "Verification Decision：Correct", True),
            ("en", "### Verification Decision: Correct", True),
            ("en", "> Verification Decision: Correct", None),
            ("en", "'Verification Decision: Correct'", None),
            ("en", "`Verification Decision: Correct`", None),
            ("en", "~~Verification Decision: Correct~~", None),
            ("en", "Verification Decision: Correct?", None),
            ("en", "Verification Decision: !Correct", None),
            ("en", "Verification Decision: not Correct", None),
            ("en", "Verification Decision: ¬Correct", None),
            ("en", "Verification Decision Correct", None),
            ("en", "Verification Decision: Corre\u200bct", None),
            ("en", "Verification Decision: Correct\u202e", None),
            ("en", "Verification Decision: Correct\n\u200b", None),
            ("en", "Verıfıcatıon Decision: Correct", None),
            ("en", "Verification Deciſion: Correct", None),
            ("en", "Verification Decision: Соrrect", None),
            ("en", "Verification Decision: Ｃｏｒｒｅｃｔ", None),
            ("en", "> Verification Decision: Correct\nVerification Decision: Incorrect", False),
            ("en", "Verification Decision: Correct\nVerification Decision: Incorrect", None),
        ],
    )
    def test_what_reads_as_a_verdict(self, code: str, reply: str, verdict: bool | None) -> None:
        assert parse_verdict(reply, WORDINGS[code]) is verdict

    @given(wordings, both, anything, st.sampled_from(["'", '"', "„", "«", "`", ">", "“", "(", "["]))
    def test_a_quoted_verdict_is_none(
        self, wording: Wording, correct: bool, before: str, mark: str
    ) -> None:
        line = wording.verdict_line(correct=correct)
        assert parse_verdict(f"{before}{mark}{line}", wording) is None
        assert parse_verdict(f"{before}\n{mark}{line}{mark}", wording) is None

    @given(wordings, both, st.data())
    def test_a_part_of_a_verdict_is_none(
        self, wording: Wording, correct: bool, data: st.DataObject
    ) -> None:
        line = wording.verdict_line(correct=correct)
        start = data.draw(st.integers(0, len(line)))
        end = data.draw(st.integers(start, len(line)))
        part = line[start:end]
        assume(part != line)
        assert parse_verdict(part, wording) is None

    @given(wordings, both, st.data())
    def test_another_character_in_it_makes_it_none(
        self, wording: Wording, correct: bool, data: st.DataObject
    ) -> None:
        line = wording.verdict_line(correct=correct)
        at = data.draw(st.sampled_from([i for i, c in enumerate(line) if c.isalpha()]))
        other = data.draw(st.characters(codec="utf-8", exclude_categories=["Mn", "Mc", "Me"]))
        assume(folded(other) != folded(line[at]))
        assert parse_verdict(line[:at] + other + line[at + 1 :], wording) is None

    @given(wordings, both, st.data(), st.sampled_from("\u200b\u200c\u200d\u2060\u202e\u2066\ufeff"))
    def test_what_is_not_seen_makes_it_none(
        self, wording: Wording, correct: bool, data: st.DataObject, unseen: str
    ) -> None:
        line = wording.verdict_line(correct=correct)
        at = data.draw(st.integers(0, len(line)))
        assert parse_verdict(line[:at] + unseen + line[at:], wording) is None

    @given(wordings, both, anything)
    @example(ENGLISH, True, "in")
    @example(WORDINGS["zh"], True, "不")
    def test_what_stands_before_the_word_never_turns_it(
        self, wording: Wording, correct: bool, prefix: str
    ) -> None:
        word = wording.accept if correct else wording.reject
        read = parse_verdict(f"{wording.label}{wording.colon}{prefix}{word}", wording)
        said = folded(f"{prefix}{word}")
        if folded(wording.reject) in said:
            assert read in (False, None)
        elif read is not None:
            assert read is correct

    @given(wordings, anything)
    def test_other_text_is_none(self, wording: Wording, text: str) -> None:
        assume(folded(wording.label) not in folded(text))
        assert parse_verdict(text, wording) is None

    @given(wordings, both)
    def test_decomposed_and_capital_letters_are_the_same(
        self, wording: Wording, correct: bool
    ) -> None:
        line = wording.verdict_line(correct=correct)
        assert parse_verdict(unicodedata.normalize("NFD", line), wording) is correct
        assert parse_verdict(line.upper(), wording) is correct


def _token(token: str, logprob: float = 0.0) -> dict[str, Any]:
    return {"token": token, "logprob": logprob}


class TestOneToken:
    @pytest.mark.parametrize(
        ("token", "word", "other", "counts"),
        [
            ("Yes", "Yes", "No", True),
            (" yes", "Yes", "No", True),
            ("Ye", "Yes", "No", True),
            ("No", "Yes", "No", False),
            ("Not", "No", "Yes", False),
            ("'Yes", "Yes", "No", False),
            ("Үes", "Yes", "No", False),
            ("Ｙｅｓ", "Yes", "No", False),
            ("Y\u200b", "Yes", "No", False),
            ("yeſ", "Yes", "No", False),
            ("", "Yes", "No", False),
            ("Yes,", "Yes", "No", False),
            ("不", "正确", "不正确", False),
            ("不", "不正确", "正确", True),
            ("不是", "是", "否", False),
            ("是", "是", "否", True),
            ("S", "Sí", "No", True),
            ("Si\u0301", "Sí", "No", True),
            ("Si", "Sí", "No", False),
            ("C", "Correct", "Certainly not", False),
            ("Co", "Correct", "Certainly not", True),
        ],
    )
    def test_what_begins_a_word(self, token: str, word: str, other: str, counts: bool) -> None:
        assert _mass([_token(token)], word, other) == (1.0 if counts else 0.0)

    def test_figures_of_a_broken_server(self) -> None:
        alternatives = [_token("Yes", math.nan), _token("Yes", -math.inf), _token("Yes", 1e9)]
        assert [_mass([each], "Yes", "No") for each in alternatives] == [0.0, 0.0, 1.0]

    @given(wordings, st.lists(st.tuples(anything, st.floats(-20, 0))))
    def test_no_token_counts_for_both(
        self, wording: Wording, given_: list[tuple[str, float]]
    ) -> None:
        for token, logprob in given_:
            each = [_token(token, logprob)]
            found = (_mass(each, wording.yes, wording.no), _mass(each, wording.no, wording.yes))
            assert 0.0 in found
