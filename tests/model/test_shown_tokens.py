"""Tokens as people see them: roles by closed form, those that are pooled by what changes the vector."""

from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.framing import Role
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.model.shown_tokens import show_encoder_tokens, show_tokens
from embedsmith.settings.choices import Pooling
from tests.tiny import save_encoder

TEXT = "a cat sleeps"
LETTERS = {"s": Role.START, "p": Role.PROMPT, "t": Role.TEXT, "e": Role.END}


def _roles(embedder: Embedder, text: str = TEXT) -> str:
    (shown,) = show_tokens(embedder, [text])
    assert [token.id for token in shown.tokens] == embedder.tokenize([text]).ids[0].tolist()
    return "".join(next(letter for letter, role in LETTERS.items() if role is token.role) for token in shown.tokens)


@pytest.mark.parametrize("way", ["apart", "joined"])
@pytest.mark.parametrize(
    ("prompt", "roles"),
    [
        (None, "sttte"),
        ("the roof {text}", "sppttte"),
        ("{text} rain", "stttpe"),
        ("the {text} rain falls", "sptttppe"),
        ("the {text} rain {text} falls", "sptttptttpe"),
    ],
)
def test_roles(model_folders: dict[str, str], way: str, prompt: str | None, roles: str) -> None:
    embedder = Embedder.load(model_folders["llama"], prompt=prompt, prompt_tokens=way, precision="fp32")
    assert _roles(embedder) == roles
    assert _roles(embedder, "") == roles.replace("t", "")


@pytest.mark.parametrize("way", ["apart", "joined"])
def test_a_text_that_is_cut_keeps_its_prompt(model_folders: dict[str, str], way: str) -> None:
    embedder = Embedder.load(
        model_folders["llama"], prompt="the {text} rain falls", prompt_tokens=way, max_length=8, precision="fp32"
    )
    assert _roles(embedder, "a b c d e f g h") == "sptttppe"
    long, short = show_tokens(embedder, ["a b c d", "a b c"])
    assert (long.is_cut, short.is_cut) == (True, False)


def test_no_end_token(model_folders: dict[str, str]) -> None:
    embedder = Embedder.load(model_folders["llama"], prompt="{text} rain", end_token=False, precision="fp32")
    assert _roles(embedder) == "stttp"
    (shown,) = show_tokens(embedder, [TEXT])
    assert [token.is_pooled for token in shown.tokens] == [False] * 4 + [True]


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("prompt", [None, "the {text} rain {text} falls"])
def test_the_vector_is_made_of_what_is_pooled(model_folders: dict[str, str], pooling: Pooling, prompt: str) -> None:
    """The states of all other tokens, turned to noise, change nothing; those of each pooled one do."""
    embedder = Embedder.load(model_folders["llama"], pooling=pooling, prompt=prompt, precision="fp32")
    pooled = [token.is_pooled for token in show_tokens(embedder, [TEXT])[0].tokens]
    packed = embedder.pack([TEXT])
    states = embedder.hidden_states(packed).detach()

    def vector(changed: list[bool]) -> np.ndarray:
        noisy = torch.where(torch.tensor(changed)[:, None], states + 1.0, states)
        embedder.hidden_states = lambda packed, ends_only=False, **_: (
            noisy[packed.segments.ends] if ends_only else noisy
        )
        return embedder.embed(packed).numpy()

    plain = vector([False] * len(pooled))
    np.testing.assert_array_equal(vector([not one for one in pooled]), plain)
    for place in np.flatnonzero(pooled):
        assert np.abs(vector([index == place for index in range(len(pooled))]) - plain).max() > 1e-4


def test_an_encoder_s(tmp_path: Path) -> None:
    encoder = SentenceEncoder.load(str(save_encoder(tmp_path / "encoder", prompts={"document": "the roof "})))
    texts = [TEXT, "cat " * 200]
    short, long = show_encoder_tokens(encoder, encoder.copy_tokenizer(), texts)
    assert [token.role for token in short.tokens] == [Role.START, Role.PROMPT, Role.PROMPT, *[Role.TEXT] * 3]
    assert [token.token for token in short.tokens] == ["<s>", "the", "roof", "a", "cat", "sleeps"]
    assert (short.is_cut, long.is_cut, len(long.tokens)) == (False, True, encoder.max_length)
    assert {token.is_pooled for token in short.tokens} == {None}
