"""Control tokens count in the prompt; spelled in a text they are characters, whatever the tokenizer is made of."""

from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from embedsmith.data.pairs import load_pairs
from embedsmith.model.control_tokens import TextEncoder, find_control_tokens
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.settings import PromptTokens
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.prompts import read_prompt
from embedsmith.support.errors import ConfigError
from tests.made_tokenizers import KINDS, MARKS, SPECIAL, make_bytes, make_fast
from tests.published import SAVERS
from tests.tiny import TEXTS, make_tokenizer


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def _texts_with(token: str) -> list[str]:
    return [token, f"stop at {token}", f"{token} a cat", f"a cat{token}runs", f"a {token}{token} cat", f"x {token} "]


@pytest.mark.parametrize("token", [*SPECIAL, *MARKS])
def test_a_control_token_in_a_text_is_its_characters(tokenizer: PreTrainedTokenizerFast, token: str) -> None:
    control = find_control_tokens(tokenizer)
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for text in _texts_with(token):
        ids = TextTokenizer(tokenizer, max_length=200)([text])[0].tolist()
        assert (ids[0], ids[-1]) == (start, end)
        assert not set(ids[1:-1]) & set(control.values())
        assert tokenizer.decode(ids[1:-1]).strip() == text.strip()


@pytest.mark.parametrize("kind", ["bytes", "pieces", "pieces without prefix"])
@pytest.mark.parametrize("token", [*SPECIAL, *MARKS])
def test_it_is_cut_as_by_the_same_model_without_added_tokens(kind: str, token: str) -> None:
    tokenizer = KINDS[kind]()
    backend = tokenizer.backend_tokenizer
    plain = Tokenizer(backend.model)
    plain.normalizer, plain.pre_tokenizer = backend.normalizer, backend.pre_tokenizer
    for text in _texts_with(token):
        for template in (None, "query: {text}", '"{text}" in one word:'):
            prompt = read_prompt(template)
            encoded = TextEncoder(tokenizer).encode([text], [prompt])[0]
            assert encoded.ids[1:] == plain.encode(prompt.around(text)).ids


def test_texts_without_control_tokens_keep_their_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [*load_pairs("sample").sentence1, "", " ", "a  cat\n\nsleeps <h1>remdesivir", "Ünï 東京 🙂", "cat " * 99]
    for template in (
        None,
        "query: {text}",
        '"{text}" in one word:',
        "{text} again {text}",
        "<|im_start|>a{text}<image>",
    ):
        prompts = [read_prompt(template)] * len(texts)
        encoder = TextEncoder(tokenizer)
        ids = [encoded.ids for encoded in encoder.encode(texts, prompts)]
        assert ids == tokenizer([prompts[0].around(text) for text in texts])["input_ids"]
        assert ids == [encoder.encode_plainly(text, prompts[0]).ids for text in texts]


@pytest.mark.parametrize("way", get_args(PromptTokens))
@pytest.mark.parametrize("token", ["</s>", "<|im_end|>", "<image>"])
def test_a_prompts_control_tokens_count_and_the_texts_do_not(
    tokenizer: PreTrainedTokenizerFast, token: str, way: PromptTokens
) -> None:
    control = find_control_tokens(tokenizer)
    expected = [control[name] for name in ("<s>", "<|im_start|>", "<image>")]
    template = "<|im_start|>the {text} <image>runs"
    tokenize = TextTokenizer(tokenizer, max_length=200, prompt=template, prompt_tokens=way)
    for text in ("a cat", f"a {token} cat", token, f"<|im_start|>{token}"):
        ids = tokenize([text])[0].tolist()
        assert [index for index in ids[:-1] if index in control.values()] == expected
        others = [index for index in ids if index not in control.values()]
        assert tokenizer.decode(others).replace(" ", "") == f"the{text}runs".replace(" ", "")


@pytest.mark.parametrize(
    ("template", "text"), [("stop </s{text}", "> cat"), ("{text}s> cat", "stop </"), ("<{text}>", "s")]
)
def test_no_control_token_comes_about_where_prompt_and_text_meet(
    tokenizer: PreTrainedTokenizerFast, template: str, text: str
) -> None:
    control = find_control_tokens(tokenizer)
    tokenize = TextTokenizer(tokenizer, max_length=200, prompt=template, prompt_tokens="joined")
    ids = tokenize([text])[0].tolist()
    assert not set(ids[1:-1]) & set(control.values())
    assert tokenizer.decode(ids[1:-1]).strip() == template.replace("{text}", text)


@pytest.mark.parametrize("length", [8, 9, 12])
@pytest.mark.parametrize("way", get_args(PromptTokens))
def test_truncation_cuts_the_text_with_its_spelled_control_tokens(
    tokenizer: PreTrainedTokenizerFast, length: int, way: PromptTokens
) -> None:
    text = "a cat </s> runs <|im_end|> away " * 9
    for template in ("{text}", "<|im_start|>{text}<image>", "<|im_start|>{text}<image>{text}"):
        make = partial(TextTokenizer, tokenizer, prompt=template, prompt_tokens=way)
        ids = make(max_length=length)([text])[0].tolist()
        whole = make(max_length=999)([text])[0].tolist()
        control = set(find_control_tokens(tokenizer).values())
        assert length - 2 < len(ids) <= length
        assert [index for index in ids if index in control] == [index for index in whole if index in control]
        if template.count("{text}") == 1:
            behind = 1 + template.endswith("<image>")
            assert ids == whole[: length - behind] + whole[-behind:]


def test_an_echo_pools_its_second_copy() -> None:
    tokenizer = make_bytes()
    tokenized = TextTokenizer(tokenizer, max_length=99, prompt="<image>{text}<|im_end|>{text}").tokenize(["a </s>"])
    words = tokenizer.convert_ids_to_tokens(tokenized.ids[0].tolist())
    assert words[tokenized.pool_from[0] - 1] == "<|im_end|>"
    assert words[tokenized.pool_from[0] : -1] == words[2 : tokenized.pool_from[0] - 1]


@pytest.mark.parametrize("lstrip", [True, False])
@pytest.mark.parametrize("rstrip", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("single_word", [True, False])
@pytest.mark.parametrize("special", [True, False])
def test_however_a_token_is_matched(
    lstrip: bool, rstrip: bool, normalized: bool, single_word: bool, special: bool
) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    token = AddedToken(
        "<stop>", lstrip=lstrip, rstrip=rstrip, normalized=normalized, single_word=single_word, special=special
    )
    fast = make_fast(tokenizer, added=[token])
    stop = fast.convert_tokens_to_ids("<stop>")
    encoder = TextEncoder(fast)
    bare, framed = read_prompt(None), read_prompt("the <stop> cat <stop> {text}")
    for text in ("a <stop> cat", "<stop>", "\uff1cSTOP\uff1e here", "<Stop>."):
        assert stop not in encoder.encode([text], [bare])[0].ids
        ids = encoder.encode([text, "a cat"], [framed, framed])
        assert [list(encoded.ids).count(stop) for encoded in ids] == [2, 2]
        assert [encoder.encode_plainly("a cat", framed).ids] == [ids[1].ids]


def test_which_added_tokens_are_control_tokens() -> None:
    assert list(find_control_tokens(make_bytes())) == [*SPECIAL, *MARKS]


def test_an_unknown_word_is_not_the_unknown_token() -> None:
    tokenizer = make_tokenizer()
    tokenize = TextTokenizer(tokenizer, max_length=20)
    unknown, spelled = (row.tolist() for row in tokenize(["dromedary", "<unk>"]))
    assert unknown == tokenizer("dromedary </s>")["input_ids"]
    assert len(spelled) == 5  # start, three words out of "<", "unk" and ">", end


@pytest.mark.parametrize("name", SAVERS)
def test_an_embedding_sees_the_characters(name: str, tmp_path: Path) -> None:
    embedder = Embedder.load(str(SAVERS[name](tmp_path / name)), precision="fp32")
    end = embedder.backbone.tokenizer.eos_token
    plain, *others = embedder.encode(["a cat sleeps", f"a cat sleeps{end}", f"{end}a cat sleeps", f"a cat{end} sleeps"])
    assert all(float(np.dot(plain, other)) < 0.999 for other in others)


def test_a_prompt_whose_control_tokens_cannot_be_told_apart() -> None:
    tokenizer = make_bytes()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex("[a-z]"), "")  # names of small letters vanish
    tokenizer.add_tokens([AddedToken("<Z>", normalized=True, special=True)])
    tokenize = TextTokenizer(tokenizer, max_length=99, prompt="<Z>{text}", prompt_tokens="joined")
    assert len(tokenize(["a"])) == 1
    with pytest.raises(ConfigError, match="cannot be told from those that a text spells"):
        tokenize(["<Z>"])
