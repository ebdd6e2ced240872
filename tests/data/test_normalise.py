"""Texts that are one to a reader have one key; texts that mean something else have another."""

import re
import unicodedata
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.data.normalise import normalise, words


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("It 's  well-known .", "it’s well known"),
        ('He said: "no"', "he said “No”!"),
        ("`` he said ''", '"He said"'),
        ("it´s", "its"),
        ("A man, eating", "a man eating..."),
        ("(so) it [is]", "So it is"),
        ("word -- word", "word — word"),
        ("COVID-19", "Covid 19"),
        ("Café", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("İstanbul", "istanbul"),
        ("ﬁne ½", "fine 1/2"),
        ("Ｃ＋＋", "c++"),
        ("x\u2028y\u200b\u00adz", "X y Z"),
        ("❤️", "❤"),
        ("$ 5 , please", "$5 please"),
        ("at 9 : 30 p.m.", "At 9:30 pm"),
        ("1990–95", "1990-95"),
        ("at −5 degrees", "at -5 degrees"),
        ("हिन्दी।", "हिन्दी"),
        ("你好。", "你好"),
    ],
)
def test_texts_that_are_one(first: str, second: str) -> None:
    assert normalise(first) == normalise(second)


@pytest.mark.parametrize(
    "texts",
    [
        ("C", "C++", "C#", "F#"),
        ("A", "A+", "A-", "A*"),
        ("5", "$5", "€5", "5%", "-5", "5°", "#5"),
        ("35", "3.5", "3,5", "3:5", "3/5", "3-5", "3 5", "3*5", "3^5", "3+5", "3×5"),
        ("x = y", "x != y", "x < y", "x > y", "x ~ y"),
        ("R&D", "RD", "R/D", "R@D"),
        ("किताब", "कुताब", "कताब", "किताबें"),
        ("ที่", "ที", "ท"),
        ("كَتَبَ", "كُتُبَ", "كتب"),
        ("cafe", "café"),
        ("fine 👍", "fine 👎", "fine"),
        ("?!", "...", ":)", ":("),
    ],
)
def test_texts_that_differ_in_what_carries_meaning(texts: tuple[str, ...]) -> None:
    for first, second in combinations(texts, 2):
        assert normalise(first) != normalise(second), (first, second)


letters = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd", "Sc"]), min_size=1)


@given(st.lists(letters, min_size=1, max_size=5), st.sampled_from(["NFC", "NFD", "NFKC"]))
def test_spaces_form_and_end_never_count(words: list[str], form: str) -> None:
    text = " ".join(words)
    assert normalise(unicodedata.normalize(form, f" “{'  '.join(words)}” . ")) == normalise(text)


@given(st.text())
def test_every_text_has_a_key(text: str) -> None:
    assert normalise(text) or not text.strip()


def test_words_keep_their_marks() -> None:
    assert words("किताब, कुताब!") == ["किताब", "कुताब"]
    assert words("It's 3.5 cafe\u0301s_x — A") == ["it", "s", "3", "5", "cafe\u0301s_x", "a"]


@given(st.text(st.characters(max_codepoint=0x24F, exclude_characters="İ")))  # its lower case has a mark
def test_words_of_latin_are_those_of_the_library(text: str) -> None:
    assert words(text) == re.findall(r"\w+", text.lower())
