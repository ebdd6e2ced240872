"""A chat model's answer -> the JSON in it, wherever it stands.

Models think aloud first, put a fence round their JSON, talk about it, or give several drafts. So a JSON parser is tried
at every bracket that may open a value (those inside of a value found are part of it), and the last value that fits is
the answer. What stands before the end of the model's thinking is none.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from embedsmith.data.columns import text_fault
from embedsmith.data.normalise import normalise
from embedsmith.data.synthesis_prompts import ANSWER_KEYS
from embedsmith.support.json_text import DoubledNameError, unique_object

EMPTY = "empty answer"
CUT_SHORT = "JSON cut short"
UNFINISHED_THINKING = "thinking that never ends"
_MAX_CHARACTERS = 20_000
_MAX_BRACKETS = 10_000
_DECODER = json.JSONDecoder(object_pairs_hook=unique_object, strict=False)  # not strict: line breaks inside of strings
_BRACKET = re.compile(r"[\[{]")
_TAGS = "(?:think|thinking|thought|reasoning|reflection)"
_THINKING_STARTS = re.compile(rf"\s*<{_TAGS}>", re.IGNORECASE)
_THINKING_ENDS = re.compile(rf"</{_TAGS}>", re.IGNORECASE)


def read_triplet(answer: str) -> tuple[dict[str, str], str]:
    """The texts of the last sound triplet in an answer, and what is wrong where there is none ("" if nothing)."""
    values, why_none = _values_of(answer)
    objects = [one for value in reversed(values) for one in _inside(value) if isinstance(one, dict)]
    faults = []
    for one in objects:
        if one.keys() & set(ANSWER_KEYS):
            faults.append(_fault_of(one))
            if not faults[-1]:
                return {key: one[key].strip() for key in ANSWER_KEYS}, ""
    why_none = why_none or (f"JSON without {', '.join(ANSWER_KEYS)}" if objects else "no JSON object")
    return {}, faults[0] if faults else why_none


def read_tasks(answer: str) -> tuple[list[str], str]:
    """The distinct texts of the last list of texts in an answer, and what is wrong where there is none."""
    values, why_none = _values_of(answer)
    for value in reversed(values):
        for one in _inside(value):
            if isinstance(one, list) and (texts := [text for text in one if text_fault(text) is None]):
                return list(dict.fromkeys(texts)), ""
    return [], why_none or "no JSON list of texts"


def _fault_of(value: dict[str, Any]) -> str:
    """Why an object is no triplet; "" if it is one."""
    for key in ANSWER_KEYS:
        if fault := text_fault(value.get(key)):
            return f"{key} {fault.split(',')[0]}"
        if len(value[key]) > _MAX_CHARACTERS:
            return f"{key} too long"
    return "two texts alike" if len({normalise(value[key]) for key in ANSWER_KEYS}) < len(ANSWER_KEYS) else ""


def _inside(value: Any) -> Iterator[Any]:
    """A value, then the objects and lists in it."""
    yield value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list):
            yield from _inside(part)


def _values_of(answer: str) -> tuple[list[Any], str]:
    """Objects and lists behind the model's thinking, in their order, and why there is none ("" if not known)."""
    found: list[tuple[int, int, Any]] = []  # start, end, value
    why_none = "" if answer.strip() else EMPTY
    end = 0
    for start in [bracket.start() for bracket in _BRACKET.finditer(answer)][-_MAX_BRACKETS:]:
        if start >= end:
            try:
                value, end = _DECODER.raw_decode(answer, start)
                found.append((start, end, value))
            except DoubledNameError:
                why_none = "a name twice in its JSON"
            except json.JSONDecodeError as error:
                is_cut = error.pos >= len(answer.rstrip()) or error.msg.startswith("Unterminated string")
                why_none = CUT_SHORT if is_cut else why_none
            except (ValueError, RecursionError):  # numbers too long, nested too deeply
                continue
    ends = [tag.end() for tag in _THINKING_ENDS.finditer(answer) if not _is_within(tag.start(), found)]
    if not ends and _THINKING_STARTS.match(answer):
        return [], UNFINISHED_THINKING
    return [value for start, _, value in found if start >= (ends or [0])[-1]], why_none


def _is_within(position: int, found: list[tuple[int, int, Any]]) -> bool:
    return any(start < position < end for start, end, _ in found)
