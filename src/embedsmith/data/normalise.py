"""A text -> what makes two texts one to a reader: letters, marks, digits and the symbols that carry meaning.

Left out are case, Unicode form (NFKC), spaces, quotes and the other punctuation. So "It 's  well-known ." and "it’s
well known" are one text, while "C++", "C#" and "C", "$5" and "5", "3.5" and "35", "5 6" and "56", or Hindi words that
differ by a vowel sign are not. Cost: a few passes in C over a text; each character is looked up once a process.
"""

import re
import unicodedata

_KEPT_CATEGORIES = "LMNS"  # letters, marks, numbers, symbols (emoji among them)
_KEPT_PUNCTUATION = "#%&@*/\\‰"  # wherever it stands
_KEPT_IN_PLACE = ".,:!-"  # by what stands beside it, see `_OUT_OF_PLACE`
_HYPHENS = "\u2010\u2011\u2012\u2013\u2212"
_VARIATION_SELECTORS = [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]
_QUOTES = re.compile("[´¨]")  # NFKC would make combining marks of them
_OUT_OF_PLACE = re.compile(
    r"[.,:!-](?!"
    r"(?<=\d[.,:-])\d"  # kept: 3.5, 10:30, 1990-95
    r"|(?:(?<=\d:)|(?<=\d :)) ?\d"  # 10 : 30, as some tokenizers of words write it
    r"|(?<=(?<![^\s+=<>*/^])-)[\d$€£]"  # -5
    r"|(?<=\b\w-)(?:[\s.,:!]|$)"  # A-
    r"|(?<=!)="  # !=
    r")"
)
_JOINT = re.compile(r" (?:(?!\d)|(?<!\d ))")
"""A space that parts no two digits."""


class _Plain(dict[int, str]):
    """Character -> what is kept of it, as `str.translate` asks for it: itself, a space, or nothing."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if character in _KEPT_IN_PLACE or character in _KEPT_PUNCTUATION or category[0] in _KEPT_CATEGORIES:
            self[code] = character
        else:
            self[code] = "" if category == "Cf" else " "  # Cf: zero-width characters
        return self[code]


_PLAIN = _Plain(
    dict.fromkeys(_VARIATION_SELECTORS, "") | dict.fromkeys(map(ord, _HYPHENS), "-") | {ord("⁄"): "/", ord("`"): " "}
)


class _InWords(dict[int, str]):
    """Character -> itself where it belongs to a word, else a space."""

    def __missing__(self, code: int) -> str:
        belongs = unicodedata.category(chr(code))[0] in "LMN" or chr(code) == "_"
        self[code] = chr(code) if belongs else " "
        return self[code]


_IN_WORDS = _InWords()


def words(text: str) -> list[str]:
    """Runs of letters, marks and digits, in lower case; `\\w` of `re` has no marks, and parts words of many scripts."""
    return text.lower().translate(_IN_WORDS).split()


def normalise(text: str) -> str:
    """What two texts that are one to a reader have in common; a text of punctuation alone stays as it is.

    Reference: Unicode 3.13, compatibility caseless matching (without its last decomposition).
    """
    folded = unicodedata.normalize("NFKC", _QUOTES.sub(" ", text)).casefold().replace("i\u0307", "i")  # İ
    folded = unicodedata.normalize("NFKC", folded)
    spaced = _OUT_OF_PLACE.sub(" ", " ".join(folded.translate(_PLAIN).split()))
    return _JOINT.sub("", " ".join(spaced.split())) or folded
