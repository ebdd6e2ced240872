"""Prompt and text apart: ids are those of the parts, one behind the other, whatever the tokenizer is made of."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.settings import PoolOver
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.prompts import read_prompt
from tests.made_tokenizers import KINDS, make_bytes
from tests.published import SAVERS
from tests.tiny import TEXTS, make_tokenizer

ODD = ["", " ", "x", " a cat", "Ünï 東京 🙂", "a cat runs away " * 9, "stop at </s>", "<image>"]
TEMPLATES = ["{text}", 'the cat:"{text}', 'the "{text}" runs', "{text}, away", "<|im_start|>a{text}\n{text}.<image>"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return KINDS[request.param]()


def _part(tokenizer: PreTrainedTokenizerFast, part: str) -> list[int]:
    return list(tokenizer(part, add_special_tokens=False)["input_ids"])


def _text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """A text's own tokens, control tokens as characters, without the start token."""
    return list(TextTokenizer(tokenizer, max_length=9999, end_token=False)([text])[0].tolist()[1:])


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_are_those_of_the_parts(tokenizer: PreTrainedTokenizerFast, template: str) -> None:
    tokenized = TextTokenizer(tokenizer, max_length=9999, prompt=template).tokenize(ODD)
    before, *others = template.split("{text}")
    first = [tokenizer.bos_token_id, *_part(tokenizer, before)]
    for text, ids, shared in zip(ODD, tokenized.ids, tokenized.shared, strict=True):
        behind = [index for part in others for index in (*_text(tokenizer, text), *_part(tokenizer, part))]
        assert ids.tolist() == [*first, *behind, tokenizer.eos_token_id]
        assert shared == (len(first) if before and len(others) == 1 else 0)


def test_a_blank_before_the_text_is_the_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    """As where both are cut together, so that words have the tokens that the model knows."""
    texts = ["the cat", "", "runs"]
    found = TextTokenizer(tokenizer, max_length=99, prompt="the cat {text} runs ").tokenize(texts)
    together = TextTokenizer(tokenizer, max_length=99, prompt="the cat {text} runs ", prompt_tokens="joined")
    for index in (0, 2):  # a blank alone may be taken together with the one behind it
        assert found.ids[index].tolist() == together([texts[index]])[0].tolist()
    first = [tokenizer.bos_token_id, *_part(tokenizer, "the cat")]
    assert found.shared == [len(first)] * 3
    assert tokenizer.decode(found.ids[1].tolist()[1:-1]).split() == ["the", "cat", "runs"]


def test_a_blank_before_both_copies_is_the_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    template = "the cat {text} runs {text} the cat"
    apart, joined = (
        TextTokenizer(tokenizer, max_length=99, prompt=template, prompt_tokens=way).tokenize(["the cat", "runs"])
        for way in ("apart", "joined")
    )
    assert [ids.tolist() for ids in apart.ids] == [ids.tolist() for ids in joined.ids]
    for text, ids, start in zip(["the cat", "runs"], apart.ids, apart.pool_from, strict=True):
        assert tokenizer.decode(ids[start:-1]).strip() == f"{text} the cat"


def test_a_blank_before_one_copy_stays_where_it_stands() -> None:
    tokenizer = make_bytes()
    for template in ("the cat {text},{text}", "the cat,{text} a {text}"):
        ids = TextTokenizer(tokenizer, max_length=99, prompt=template)(["runs"])[0]
        assert tokenizer.decode(ids[1:-1]) == template.replace("{text}", "runs")


@pytest.mark.parametrize("end_token", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_text_is_cut_to_its_first_tokens(tokenizer: PreTrainedTokenizerFast, template: str, end_token: bool) -> None:
    text = "a cat </s> runs away " * 9
    own, num_copies = _text(tokenizer, text), template.count("{text}")
    before, *others = template.split("{text}")
    parts = [[tokenizer.bos_token_id, *_part(tokenizer, before)], *(_part(tokenizer, part) for part in others)]
    num_fixed = sum(len(part) for part in parts) + end_token
    end = [tokenizer.eos_token_id] * end_token
    for max_length in (num_fixed + num_copies, num_fixed + 9, num_fixed + 10):
        tokenize = TextTokenizer(tokenizer, max_length=max_length, prompt=template, end_token=end_token)
        kept = own[: (max_length - num_fixed) // num_copies]
        expected = [*parts[0], *(index for part in parts[1:] for index in (*kept, *part)), *end]
        assert tokenize([text])[0].tolist() == expected
        shorter = ["x", text, ""]
        assert tokenize.count_cut(shorter, prompt=tokenize.prompt) == 1


def test_without_a_prompt_there_is_one_way(tokenizer: PreTrainedTokenizerFast) -> None:
    for max_length in (5, 999):
        apart, joined = (
            TextTokenizer(tokenizer, max_length=max_length, prompt_tokens=way).tokenize(ODD)
            for way in ("apart", "joined")
        )
        assert [ids.tolist() for ids in apart.ids] == [ids.tolist() for ids in joined.ids]
        assert apart.pool_from == joined.pool_from
        assert apart.shared == joined.shared


@pytest.mark.parametrize("pool_over", ["all", "behind_prompt", "text"])
def test_means_look_at_the_same_words_either_way(pool_over: PoolOver) -> None:
    templates = [None, "the cat {text}", "{text} away", "the cat {text} away", "the {text} cat {text} away"]
    prompts = [read_prompt(template) for template in templates for _ in range(2)]
    apart, joined = (
        TextTokenizer(make_tokenizer(), max_length=20, pool_over=pool_over, prompt_tokens=way).tokenize(
            ["w1 w2", ""] * 5, prompts=prompts
        )
        for way in ("apart", "joined")
    )
    assert [ids.tolist() for ids in apart.ids] == [
        ids.tolist() for ids in joined.ids
    ]  # whole words cannot grow together
    assert (apart.pool_from, apart.shared) == (joined.pool_from, joined.shared)


def test_a_prompts_end_token_stands_once() -> None:
    tokenizer = make_bytes()
    for template in ("the {text} cat</s>", "the cat</s>{text}"):
        for ids in TextTokenizer(tokenizer, max_length=20, prompt=template)(["", "x"]):
            assert ids[-1] == tokenizer.eos_token_id != ids[-2]


@pytest.mark.parametrize("name", SAVERS)
def test_a_run_goes_on_in_the_way_it_was_made(name: str, tmp_path: Path) -> None:
    model = str(SAVERS[name](tmp_path / "m"))
    live = Embedder.load(model, prompt='a cat:"{text}ly', precision="fp32")
    live.add_adapter(AdapterSection())
    live.save(tmp_path / "run" / "adapter")
    file = tmp_path / "run" / "adapter" / "embedding.json"
    values = json.loads(file.read_text())
    assert values.pop("prompt_tokens") == live.settings.prompt_tokens == "apart"

    def make() -> list[list[int]]:
        loaded = Embedder.load(str(tmp_path / "run"), precision="fp32")
        return [ids.tolist() for ids in loaded.tokenizer.tokenize(TEXTS, prompts=loaded.prompt_of()).ids]

    expected = [ids.tolist() for ids in live.tokenizer.tokenize(TEXTS, prompts=live.prompt_of()).ids]
    assert make() == expected
    np.testing.assert_array_equal(
        Embedder.load(str(tmp_path / "run"), precision="fp32").encode(TEXTS), live.encode(TEXTS)
    )
    file.write_text(json.dumps(values))  # as it was written before there were two ways
    joined = TextTokenizer(live.backbone.tokenizer, max_length=150, prompt=live.settings.prompt, prompt_tokens="joined")
    assert make() == [ids.tolist() for ids in joined(TEXTS)] != expected
