"""Prompts that are tokenised apart leave in the tokenizer, and sentence-transformers' vectors are the model's own."""

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Side
from embedsmith.settings.recipe import load_config
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.verbs.base_settings import with_base_settings
from embedsmith.verbs.prepare import load_base
from tests.made_tokenizers import KINDS, SPECIAL, save_with
from tests.published import SAVERS
from tests.tiny import TEXTS
from tests.tuned import save_tuned

# Long ones are cut; one begins as a prompt does.
ALL = [*TEXTS, "", "x", " a  cat ", "Ünï 東京 🙂", "a cat runs away " * 20, "stop at </s>", "the cat: runs", *SPECIAL]


def _run(folder: Path, *, kind: str, **settings: object) -> Embedder:
    save_with(kind, folder / "base")
    return save_tuned(str(folder / "base"), folder / "run", **settings)


def _ids(embedder: Embedder, side: Side = Side.DOCUMENT) -> list[list[int]]:
    tokenized = embedder.tokenizer.tokenize(ALL, prompts=embedder.prompt_of(side))
    return [ids.tolist() for ids in tokenized.ids]


@pytest.mark.parametrize("end_token", [True, False])
@pytest.mark.parametrize(
    "template", ["the cat: {text}", 'a "{text}', 'the "{text}" runs:', "{text} is: ", "<image>a {text}</s>!"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_one_prompt_for_all_texts_is_the_tokenizers(kind: str, template: str, end_token: bool, tmp_path: Path) -> None:
    live = _run(tmp_path, kind=kind, prompt=template, end_token=end_token)
    assert export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS).smallest > 0.99999
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    expected = live.encode(ALL)
    np.testing.assert_allclose(other.encode(ALL), expected, atol=1e-5)
    np.testing.assert_allclose(other.encode_query(ALL), expected, atol=1e-5)
    alone = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    alone.enable_truncation(40)
    lead = " " * ("{text}" in template and other.prompts["document"] == " ")
    assert [alone.encode(lead + text).ids for text in ALL] == _ids(live)
    again = Embedder.load(str(tmp_path / "out"), precision="fp32")
    assert (again.settings.prompt, _ids(again)) == (template, _ids(live))
    np.testing.assert_allclose(again.encode(ALL), expected, atol=1e-5)


# That of the kind "pieces" takes two blanks as one token where a text begins with one and a prompt ends with one.
@pytest.mark.parametrize("ending", ["", " runs:"])
@pytest.mark.parametrize("kind", sorted({*KINDS} - {"pieces"}))
def test_prompts_that_differ_by_side_are_cut_off(kind: str, ending: str, tmp_path: Path) -> None:
    prompts = {"prompt": "the cat: {text}" + ending, "query_prompt": "the cat: away: {text}" + ending}
    live = _run(tmp_path, kind=kind, **prompts)
    assert export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS).smallest > 0.99999
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert other.prompts == {"document": "the cat: ", "query": "the cat: away: "}
    again = Embedder.load(str(tmp_path / "out"), precision="fp32")
    np.testing.assert_allclose(other.encode_document(ALL), live.encode(ALL), atol=1e-5)
    np.testing.assert_allclose(other.encode_query(ALL), live.encode(ALL, side="query"), atol=1e-5)
    for side in Side:
        assert _ids(again, side) == _ids(live, side)


@pytest.mark.parametrize("name", SAVERS)
def test_the_paper_s_models_with_prompts_by_side(name: str, tmp_path: Path) -> None:
    prompts = {"prompt": "the cat {text}", "query_prompt": "a {text}"}
    live = save_tuned(str(SAVERS[name](tmp_path / "m")), tmp_path / "run", **prompts)
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(other.encode_document(TEXTS), live.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(other.encode_query(TEXTS), live.encode(TEXTS, side="query"), atol=1e-5)


def test_queries_alone_may_have_a_prompt(tmp_path: Path) -> None:
    live = _run(tmp_path, kind="bytes", query_prompt="{instruction} runs: {text}", instruction="rain")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(other.encode(ALL), live.encode(ALL), atol=1e-5)
    np.testing.assert_allclose(other.encode_query(ALL), live.encode(ALL, side="query"), atol=1e-5)


def test_prompts_by_side_that_cannot_be_said_are_refused(tmp_path: Path) -> None:
    for number, (kind, prompts, error, fault) in enumerate(
        [
            (
                "bytes",
                {"query_prompt": "{text} runs"},
                ConfigError,
                "go on behind the text in several ways: .* runs' .query",
            ),
            ("bytes", {"query_prompt": "<image>{text}"}, ConfigError, "whose <image> could not be told from the same"),
            ("bytes", {"query_prompt": "{text} the {text}"}, ConfigError, "query_prompt .* goes on behind the text"),
            # A tokenizer that puts a blank before the text as well, which stands right behind the prompt there.
            (
                "pieces",
                {"query_prompt": 'the cat "{text}'},
                RunError,
                r"otherwise than the model's(.|\n)*\nExport to merged",
            ),
        ]
    ):
        folder = tmp_path / str(number)
        _run(folder, kind=kind, **prompts)
        with pytest.raises(error, match=fault):
            export(str(folder / "run"), folder=folder / "out", to=Format.SENTENCE_TRANSFORMERS)
        assert not (folder / "out").exists()
        assert export(str(folder / "run"), folder=folder / "merged", to=Format.MERGED).smallest > 0.99999


def test_training_goes_on_from_an_export(tmp_path: Path) -> None:
    live = _run(tmp_path, kind="bytes", prompt='the "{text}" runs:', end_token=False, pooling="mean")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    config = with_base_settings(load_config(None, overrides={"model.model": str(tmp_path / "out"), "output_dir": "x"}))
    assert (config.model.prompt, config.model.pooling, config.model.end_token) == ('the "{text}" runs:', "mean", False)
    base = load_base(config.model, precision="fp32")
    assert base.settings.prompt_tokens == "apart"
    np.testing.assert_allclose(base.encode(ALL), live.encode(ALL), atol=1e-5)
