"""The token contract: one end token, last; truncation cuts the text only."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.prompts import read_prompt
from embedsmith.support.errors import ConfigError, ModelError
from tests.made_tokenizers import make_bytes
from tests.tiny import WORDS, make_tokenizer

START, END = 1, 2
PROMPTS = (None, "the cat {text}", "{text} runs away", "the {text} roof")


@pytest.mark.parametrize("with_start", [True, False])
@pytest.mark.parametrize("with_end", [True, False])
def test_the_end_token_stands_once_whatever_the_tokenizer_adds(with_start: bool, with_end: bool) -> None:
    tokenizer = make_tokenizer(with_start_token=with_start, with_end_token=with_end)
    ids = TextTokenizer(tokenizer, max_length=20)(["a cat", "the", ""])
    for row, num_words in zip(ids, (2, 1, 0), strict=True):
        assert row.tolist().count(END) == 1
        assert row[-1] == END
        assert len(row) == num_words + 1 + with_start
        assert not with_start or row[0] == START


any_text = st.lists(st.sampled_from([*WORDS[:9], "</s>", "<s>", "é", "\u6f22", "\n", "x" * 9]), max_size=9).map(
    " ".join
)


@cache
def _tokenizer(prompt: str | None, max_length: int, is_closed: bool, with_start: bool, with_end: bool) -> TextTokenizer:
    tokenizer = make_tokenizer(with_start_token=with_start, with_end_token=with_end)
    return TextTokenizer(tokenizer, max_length=max_length, prompt=prompt, end_token=is_closed)


@given(any_text, st.sampled_from(PROMPTS), st.integers(7, 14), st.booleans(), st.booleans(), st.booleans())
def test_a_cut_takes_from_the_end_of_the_text_alone(
    text: str, prompt: str | None, max_length: int, is_closed: bool, with_start: bool, with_end: bool
) -> None:
    how = is_closed, with_start, with_end
    cut, whole, empty = (
        _tokenizer(prompt, length, *how)([one])[0].tolist()
        for one, length in ((text, max_length), (text, 999), ("", 999))
    )
    before = with_start + len((prompt or "{text}").partition("{text}")[0].split())
    frame = len(empty) if prompt or is_closed or with_start else 0  # nothing at all still gets an end token
    behind, room = frame - before, max_length - frame
    inner = whole[before : len(whole) - behind]
    assert cut == [*whole[:before], *inner[:room], *whole[len(whole) - behind :]]
    if is_closed or not whole:
        assert cut[-1] == END
    assert cut.count(END) == (is_closed or not (prompt or with_start or text.split()))
    assert cut.count(START) == with_start
    assert len(cut) <= max_length


def test_padding_side_and_pad_token_do_not_matter() -> None:
    tokenizer = make_tokenizer()
    before = TextTokenizer(tokenizer, max_length=20)(["a cat", "rain falls the"])
    tokenizer.padding_side = "left"
    tokenizer.pad_token = "<unk>"
    after = TextTokenizer(tokenizer, max_length=20)(["a cat", "rain falls the"])
    assert [row.tolist() for row in before] == [row.tolist() for row in after]


@pytest.mark.parametrize("num_words", [7, 8, 9, 30])
def test_truncation_keeps_start_prompt_and_end(num_words: int) -> None:
    tokenizer = make_tokenizer()
    tokenize = TextTokenizer(tokenizer, max_length=13, prompt="the cat {text} runs away")
    ids = tokenize([" ".join(f"w{n}" for n in range(num_words))])[0]
    words = tokenizer.convert_ids_to_tokens(ids.tolist())
    kept = min(num_words, 7)  # 13 less start, two words, two words, end
    assert words == ["<s>", "the", "cat", *(f"w{n}" for n in range(kept)), "runs", "away", "</s>"]


def test_a_text_at_the_limit_is_whole() -> None:
    tokenize = TextTokenizer(make_tokenizer(), max_length=4)
    assert [len(row) for row in tokenize(["w1 w2", "w1 w2 w3"])] == [4, 4]


def test_no_text_gives_no_tokens() -> None:
    assert TextTokenizer(make_tokenizer(), max_length=4)([]) == []


@pytest.mark.parametrize("prompt", ["no field", "{text} {text} {text}"])
def test_a_prompt_needs_one_field_or_two(prompt: str) -> None:
    with pytest.raises(ConfigError, match=r"must hold \{text\} once"):
        TextTokenizer(make_tokenizer(), max_length=20, prompt=prompt)


@pytest.mark.parametrize("with_end", [True, False])
def test_without_an_end_token_the_prompts_last_token_is_last(with_end: bool) -> None:
    tokenizer = make_tokenizer(with_end_token=with_end)
    tokenize = TextTokenizer(tokenizer, max_length=6, prompt="{text} runs away", end_token=False)
    short, long = tokenize(["w1", "w1 w2 w3 w4 w5"])
    assert tokenizer.convert_ids_to_tokens(short.tolist()) == ["<s>", "w1", "runs", "away"]
    assert tokenizer.convert_ids_to_tokens(long.tolist()) == ["<s>", "w1", "w2", "w3", "runs", "away"]


def test_a_text_without_any_token_still_gets_the_end_token() -> None:
    tokenize = TextTokenizer(make_tokenizer(with_start_token=False), max_length=6, end_token=False)
    assert [row.tolist() for row in tokenize([""])] == [[END]]


@pytest.mark.parametrize("num_words", [0, 1, 2, 3, 4, 9])
def test_an_echo_gives_the_text_twice_and_cuts_both_copies_alike(num_words: int) -> None:
    tokenizer = make_tokenizer()
    tokenize = TextTokenizer(tokenizer, max_length=11, prompt="the {text} cat {text} roof")
    tokenized = tokenize.tokenize([" ".join(f"w{n}" for n in range(num_words))])
    kept = [f"w{n}" for n in range(min(num_words, 3))]  # 11 less start, three words and end leaves six for two copies
    words = tokenizer.convert_ids_to_tokens(tokenized.ids[0].tolist())
    assert words == ["<s>", "the", *kept, "cat", *kept, "roof", "</s>"]
    assert tokenized.pool_from == [3 + len(kept)]


def test_an_echo_whose_second_copy_is_empty_pools_its_last_token() -> None:
    tokenize = TextTokenizer(make_tokenizer(), max_length=11, prompt="the {text} cat {text}", end_token=False)
    tokenized = tokenize.tokenize([""])
    assert tokenized.pool_from == [len(tokenized.ids[0]) - 1]


def test_every_text_may_have_a_prompt_of_its_own() -> None:
    tokenize = TextTokenizer(make_tokenizer(), max_length=12)
    prompts = [read_prompt(template) for template in ("the {text}", None, "{text} cat {text}")]
    mixed = tokenize.tokenize(["w1", "w2", "w3"], prompts=prompts)
    for text, prompt, ids, start in zip(["w1", "w2", "w3"], prompts, mixed.ids, mixed.pool_from, strict=True):
        alone = tokenize.tokenize([text], prompts=prompt)
        assert (ids.tolist(), start) == (alone.ids[0].tolist(), alone.pool_from[0])
    assert mixed.pool_from == [0, 0, 3]


@pytest.mark.parametrize("with_start", [True, False])
def test_texts_under_one_prompt_share_its_first_parts_tokens(with_start: bool) -> None:
    tokenize = TextTokenizer(make_tokenizer(with_start_token=with_start), max_length=9)
    prompts = [
        read_prompt(template)
        for template in ("the cat {text}", "the cat {text} away", None, "{text} away", "the {text} cat {text}")
    ]
    tokenized = tokenize.tokenize(["w1 w2"] * 5, prompts=prompts)
    assert tokenized.shared == [2 + with_start, 2 + with_start, 0, 0, 0]
    assert tokenized.select([2, 1]).shared == [0, 2 + with_start]
    cut = tokenize.tokenize(["w1 " * 20, ""], prompts=prompts[0])
    assert cut.shared == [2 + with_start] * 2


def test_what_a_text_changes_of_the_prompts_tokens_is_not_shared() -> None:
    tokenizer = make_bytes()
    tokenize = TextTokenizer(tokenizer, max_length=99, prompt="a ca{text}", prompt_tokens="joined")
    alone = tokenizer("a ca")["input_ids"]
    for text in ("t sleeps", "x", " cat", "\u0301"):
        tokenized = tokenize.tokenize([text])
        ids, shared = tokenized.ids[0].tolist(), tokenized.shared[0]
        assert ids[:shared] == alone[:shared]
        assert shared == len(alone) or ids[shared] != alone[shared]
    assert tokenize.tokenize(["t sleeps"]).shared[0] < len(alone) == tokenize.tokenize(["x"]).shared[0]


def test_every_text_keeps_a_token_of_its_own() -> None:
    tokenize = TextTokenizer(make_tokenizer(), max_length=9, prompt="the cat {text}", end_token=False)
    tokenized = tokenize.tokenize([""])
    assert (len(tokenized.ids[0]), tokenized.shared) == (3, [2])


def test_a_prompt_must_leave_room() -> None:
    with pytest.raises(ConfigError, match="alone take 6"):
        TextTokenizer(make_tokenizer(), max_length=6, prompt="the cat {text} runs away")


def test_a_tokenizer_without_an_end_token() -> None:
    tokenizer = make_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        TextTokenizer(tokenizer, max_length=6)
