"""What makes a row teach the wrong thing: two of its texts are one, or one of them says nothing.

One rule of equality for all data: `text_key`. Training says how many such rows there are and where the first one is;
`data triplets` leaves them out.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

PLACEHOLDERS = frozenset({"n/a", "n.a", "na", "nan", "nil", "none", "null", "undefined", "#n/a"})
"""Words that stand for a missing text, in lower case and without a full stop behind them."""
_LIST_WRITTEN_OUT = re.compile(r"""\[\s*(["']).*\1\s*,?\s*\]""", re.DOTALL)


@lru_cache(maxsize=4096)  # a row's texts are asked for several times, and so are repeated ones
def text_key(text: str) -> str:
    """Equal for equal texts: the same characters, however composed, the amount of white space aside."""
    squeezed = " ".join(text.split())
    return squeezed if squeezed.isascii() else unicodedata.normalize("NFC", squeezed)


def is_placeholder(text: str) -> bool:
    """Whether a text only stands for a missing one, such as `n/a`, `null` or `-`: a known word, or punctuation."""
    word = text_key(text).rstrip(".")
    if word[:1].isalnum():  # as nearly every text: the quick way
        return len(word) < 10 and word.casefold() in PLACEHOLDERS
    return word.casefold() in PLACEHOLDERS or all(unicodedata.category(mark)[0] in "PZ" for mark in word)


def row_doubts(anchor: str, positive: str, negatives: Sequence[str] = ()) -> list[str]:
    """Why a row teaches the wrong thing, as statements about it; none for a good one."""
    start, right = text_key(anchor), text_key(positive)
    wrong = {text_key(negative) for negative in negatives}
    if start == right:
        found = ["all texts are one"] if wrong == {start} else ["the positive equals the anchor"]
    else:
        found = ["a negative equals the anchor"] if start in wrong else []
    if right in wrong and start != right:
        found.append("a negative equals the positive")
    return [*found, *text_doubts((anchor, positive, *negatives))]


def text_doubts(texts: Sequence[str]) -> list[str]:
    """What some texts say nothing by, as statements about their row."""
    found = []
    if any(map(is_placeholder, texts)):
        found.append("a text only stands for a missing one, such as 'n/a'")
    if any(text.lstrip().startswith("[") and _LIST_WRITTEN_OUT.fullmatch(text.strip()) for text in texts):
        found.append("a text looks like a list that was written as text")
    return found
