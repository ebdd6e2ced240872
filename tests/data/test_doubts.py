"""Rows that teach the wrong thing are told from good ones."""

import pytest

from embedsmith.data.doubts import is_placeholder, row_doubts, text_key

PLACEHOLDER = "a text only stands for a missing one, such as 'n/a'"
LIST = "a text looks like a list that was written as text"


@pytest.mark.parametrize(
    ("first", "second", "are_equal"),
    [
        ("a dog", " a  dog\n", True),
        ("caf\u00e9", "cafe\u0301", True),
        ("a dog", "A dog", False),
        ("a dog", "a dog.", False),
        ("C++", "C#", False),
        ("\u0915\u093f", "\u0915\u0940", False),  # Devanagari ki with a short and a long vowel
    ],
)
def test_one_rule_of_equality(first: str, second: str, are_equal: bool) -> None:
    assert (text_key(first) == text_key(second)) == are_equal


@pytest.mark.parametrize(
    "text", ["n/a", "N/A", " n/a ", "N.A.", "n.a", "null", "None", "NaN", "-", "...", "?", "#N/A", ""]
)
def test_placeholders(text: str) -> None:
    assert is_placeholder(text)


@pytest.mark.parametrize(
    "text", ["a", "0", "C", "\u2211", "\U0001f600", "$", "no", "none of them", "n/a for now", "犬"]
)
def test_short_texts_that_say_something(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize(
    ("row", "doubts"),
    [
        (("a", "b", ["c", "d"]), []),
        (("a", "b"), []),
        (("a", "b", ["c", " b "]), ["a negative equals the positive"]),
        (("a", "b", ["a", "c"]), ["a negative equals the anchor"]),
        (("a", "b", ["a", "b"]), ["a negative equals the anchor", "a negative equals the positive"]),
        (("a", "a", ["c"]), ["the positive equals the anchor"]),
        (("a", "a"), ["the positive equals the anchor"]),
        (("a", "a", ["a", "a"]), ["all texts are one"]),
        (("a", "a", ["a", "c"]), ["the positive equals the anchor"]),
        (("a", "b", ["n/a"]), [PLACEHOLDER]),
        (("n/a", "b", ["c"]), [PLACEHOLDER]),
        (("a", "n/a", ["n/a"]), ["a negative equals the positive", PLACEHOLDER]),
        (("a", "b", ['["c", "d"]']), [LIST]),
        (("a", "['b']", ["c"]), [LIST]),
        (("a", "[b] and ['c']", ["c[0]"]), []),
    ],
)
def test_what_is_wrong_with_a_row(row: tuple[str, str, list[str]], doubts: list[str]) -> None:
    assert row_doubts(*row) == doubts
