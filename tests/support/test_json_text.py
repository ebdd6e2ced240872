"""A name stands once in JSON, and what is none has one kind of error."""

import pytest

from embedsmith.support.json_text import DoubledNameError, parse_json


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"x": {"a": 1, "b": 0, "a": 2}}', '[{"a": 1, "\\u0061": 2}]'])
def test_a_name_that_stands_twice_in_json_is_named_with_both_values(text: str) -> None:
    with pytest.raises(DoubledNameError, match="the name 'a' stands there twice, with 1 and 2"):
        parse_json(text)


@pytest.mark.parametrize("text", ["{", "[" * 200_000, "1" * 5000, "{'a': 1}"])
def test_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_json(text)


def test_json_as_the_library_reads_it() -> None:
    assert parse_json('{"a": [1, {"a": null}], "b": "\\u2028\\ud83d"}') == {"a": [1, {"a": None}], "b": "\u2028\ud83d"}
