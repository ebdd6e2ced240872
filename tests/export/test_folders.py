"""Exported == live, through transformers and sentence-transformers, over families, prompts and poolings."""

import json
import weakref
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from embedsmith.cli import run_command
from embedsmith.export import folders, parity
from embedsmith.export.folders import Format, export
from embedsmith.model.embedder import Embedder
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.model.tokens import TextTokenizer
from embedsmith.settings.config import AdapterSection
from embedsmith.support.errors import ConfigError, RunError
from tests.made_tokenizers import KINDS, MARKS, SPECIAL, TEXT_TOKENS, save_with
from tests.published import SAVERS
from tests.tiny import TEXTS, save_model
from tests.tuned import save_tuned

WEIGHTS = (Format.MERGED, Format.SENTENCE_TRANSFORMERS)
LONG = " ".join(f"w{n}" for n in range(80))


@pytest.mark.parametrize("family", ["llama", "gemma", "phi", "granite", "qwen3", "mistral"])
@pytest.mark.parametrize("pooling", ["last", "mean", "weighted_mean"])
def test_exported_equals_live(family: str, pooling: str, model_folders: dict[str, str], tmp_path: Path) -> None:
    live = save_tuned(model_folders[family], tmp_path / "run", pooling=pooling, prompt="the cat {text}")
    expected = live.encode([*TEXTS, LONG])
    for to in WEIGHTS:
        assert export(str(tmp_path / "run"), folder=tmp_path / to, to=to).smallest > 0.99999
        loaded = Embedder.load(str(tmp_path / to), precision="fp32")
        np.testing.assert_allclose(loaded.encode([*TEXTS, LONG]), expected, atol=1e-5)
    other = SentenceTransformer(str(tmp_path / "sentence-transformers"), device="cpu")
    np.testing.assert_allclose(other.encode([*TEXTS, LONG]), expected, atol=1e-5)
    np.testing.assert_allclose(other.encode(TEXTS[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize("with_start", [True, False])
def test_the_tokenizer_puts_the_end_token_once(with_start: bool, tmp_path: Path) -> None:
    model = save_model("llama", tmp_path / "m", with_start_token=with_start)
    export(str(model), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    live = Embedder.load(str(model), precision="fp32")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for num_words in (0, 1, 125, 126, 127, 128, 200):  # around the limit of 128
        text = " ".join(["cat"] * num_words)
        ids = tokenizer(text, truncation=True)["input_ids"]
        assert ids == live.tokenizer([text])[0].tolist()
    assert tokenizer.chat_template is None
    # Names that transformers 4 and sentence-transformers 5 know; with newer ones they do not load the folder.
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "embedding_dimension" not in json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())


def test_merged_is_a_plain_model(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = save_tuned(model_folders["llama"], tmp_path / "run")
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    model = AutoModel.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.from_numpy(live.tokenizer(TEXTS[:1])[0])[None]
    with torch.no_grad():
        state = model(ids).last_hidden_state[0, -1]
    np.testing.assert_allclose(torch.nn.functional.normalize(state, dim=0), live.encode(TEXTS[:1])[0], atol=1e-5)
    assert json.loads((tmp_path / "out" / "embedding.json").read_text())["max_length"] == 40


@pytest.mark.parametrize("name", SAVERS)
def test_the_paper_s_models_in_their_published_layout(name: str, tmp_path: Path) -> None:
    save_tuned(str(SAVERS[name](tmp_path / "model")), tmp_path / "run")
    for to in WEIGHTS:
        assert run_command(["export", str(tmp_path / "run"), str(tmp_path / to), "--to", to]) == 0


def test_queries_get_their_prompt(model_folders: dict[str, str], tmp_path: Path) -> None:
    live = save_tuned(
        model_folders["llama"], tmp_path / "run", query_prompt="{instruction} runs {text}", instruction="rain"
    )
    export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    other = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_allclose(other.encode(TEXTS), live.encode(TEXTS), atol=1e-5)
    queries = other.encode(TEXTS, prompt_name="query")
    np.testing.assert_allclose(queries, live.encode(TEXTS, side="query"), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])  # which has a window
def test_attention_both_ways_is_said_in_the_configuration(
    family: str, model_folders: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = save_tuned(model_folders[family], tmp_path / "run", bidirectional_layers="all", prompt="the {text} is a cat")
    texts = [*TEXTS, LONG]
    expected = live.encode(texts)
    for to in WEIGHTS:
        assert export(str(tmp_path / "run"), folder=tmp_path / to, to=to).smallest > 0.99999
        assert "transformers knows that from 5.2 on" in caplog.text
        caplog.clear()
        loaded = Embedder.load(str(tmp_path / to), precision="fp32")
        assert loaded.attends_as_base
        np.testing.assert_allclose(loaded.encode(texts), expected, atol=1e-5)
    for kernel in ("sdpa", "eager"):
        other = SentenceTransformer(
            str(tmp_path / "sentence-transformers"), device="cpu", model_kwargs={"attn_implementation": kernel}
        )
        np.testing.assert_allclose(other.encode(texts), expected, atol=1e-5)  # padded
        np.testing.assert_allclose(other.encode(texts[:1]), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"pooling": "concat"}, "pooling concat"),
        ({"bidirectional_layers": 1}, "bidirectional_layers 1, where a configuration opens all layers or none"),
        ({"prompt": "echo"}, "goes on behind the text"),
        ({"prompt": "{text} cat", "prompt_tokens": "joined"}, "goes on behind the text"),
        ({"query_prompt": "{text} cat", "prompt_tokens": "joined"}, "query_prompt"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(
    settings: dict[str, object], fault: str, model_folders: dict[str, str], tmp_path: Path
) -> None:
    save_tuned(model_folders["llama"], tmp_path / "run", **settings)
    with pytest.raises(ConfigError, match=f"Cannot be expressed in sentence-transformers: .*{fault}"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    assert export(str(tmp_path / "run"), folder=tmp_path / "merged", to=Format.MERGED).smallest > 0.99999


def test_a_window_that_transformers_opens_wider_is_refused(model_folders: dict[str, str], tmp_path: Path) -> None:
    both_ways = {"bidirectional_layers": "all", "prompt": "the {text}"}
    for max_length, is_kept in ((6, True), (7, False)):
        run = tmp_path / f"run{max_length}"
        save_tuned(model_folders["mistral"], run, max_length=max_length, **both_ways)
        if is_kept:
            assert export(str(run), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS).smallest > 0.99999
            continue
        with pytest.raises(ConfigError, match="bidirectional_layers all within a window of 6 tokens"):
            export(str(run), folder=tmp_path / "none", to=Format.SENTENCE_TRANSFORMERS)
        assert export(str(run), folder=tmp_path / "merged", to=Format.MERGED).smallest > 0.99999  # embedding.json says
        assert "is_causal" not in (tmp_path / "merged" / "config.json").read_text()


@pytest.mark.parametrize("to", WEIGHTS)
def test_one_model_is_held_at_a_time(
    to: Format, model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of 2.5 billion weights takes 10 GB in float32."""
    save_tuned(model_folders["llama"], tmp_path / "run")
    held: list[weakref.ref[Embedder]] = []
    counts: list[int] = []
    load, start = Embedder.load.__func__, SentenceTransformer.__init__

    def load_counted(cls: type[Embedder], *arguments: object, **named: object) -> Embedder:
        counts.append(sum(one() is not None for one in held))
        embedder = load(cls, *arguments, **named)
        held.append(weakref.ref(embedder.backbone.model))
        return embedder

    def start_counted(self: SentenceTransformer, *arguments: object, **named: object) -> None:
        counts.append(sum(one() is not None for one in held))
        start(self, *arguments, **named)

    monkeypatch.setattr(Embedder, "load", classmethod(load_counted))
    monkeypatch.setattr(SentenceTransformer, "__init__", start_counted)
    assert export(str(tmp_path / "run"), folder=tmp_path / "out", to=to).smallest > 0.99999
    assert counts == [0, 0]


def test_every_setting_has_been_thought_about() -> None:
    assert {field.name for field in fields(EmbeddingSettings)} == folders._CARRIED


def test_a_folder_that_embeds_otherwise_is_not_kept(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tuned(model_folders["llama"], tmp_path / "run")
    base = Embedder.load(model_folders["llama"], precision="fp32", fused=False)
    monkeypatch.setattr(folders, "merge_adapter", lambda live: base.backbone.model)
    with pytest.raises(RunError, match="does not embed as the model does"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize("to", WEIGHTS)
def test_a_tokenizer_that_cuts_otherwise_is_not_kept(
    to: Format, model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_as_it_is(tokenizer: PreTrainedTokenizerFast | TextTokenizer, *, folder: Path, **_: object) -> None:
        getattr(tokenizer, "tokenizer", tokenizer).save_pretrained(folder)

    for name in ("write_tokenizer", "write_closing_tokenizer"):
        monkeypatch.setattr(folders, name, write_as_it_is)
    monkeypatch.setattr(parity, "_ODD", ())
    monkeypatch.setattr(parity, "_NUM_SAMPLES", 0)
    monkeypatch.setattr(parity, "_NUM_LENGTHS", 0)
    with pytest.raises(RunError, match=r"cuts 'The manual says to stop at </s>, at <s>, at <unk>\.' otherwise"):
        export(model_folders["llama"], folder=tmp_path / "out", to=to)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_characters_in_every_export(kind: str, tmp_path: Path) -> None:
    save_with(kind, tmp_path / "m")
    live = Embedder.load(str(tmp_path / "m"), precision="fp32")
    texts = [f"a cat{token}" for token in ("", *SPECIAL, *MARKS, *TEXT_TOKENS)]
    expected = live.encode(texts)
    assert (expected[1:] @ expected[0]).max() < 0.999
    for to in WEIGHTS:
        assert export(str(tmp_path / "m"), folder=tmp_path / to, to=to).smallest > 0.99999
        np.testing.assert_allclose(
            Embedder.load(str(tmp_path / to), precision="fp32").encode(texts), expected, atol=1e-5
        )
    other = SentenceTransformer(str(tmp_path / "sentence-transformers"), device="cpu")
    np.testing.assert_allclose(other.encode(texts), expected, atol=1e-5)
    ids = [row.tolist() for row in live.tokenizer(texts)]
    alone = Tokenizer.from_file(str(tmp_path / "sentence-transformers" / "tokenizer.json"))
    assert [alone.encode(text).ids for text in texts] == ids
    merged = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert [[*merged(text)["input_ids"], merged.eos_token_id] for text in texts] == ids


def test_a_prompt_with_control_tokens_goes_into_a_merged_folder_alone(tmp_path: Path) -> None:
    prompt = {"prompt": "<start_of_turn>a {text}", "prompt_tokens": "joined"}
    live = save_tuned(str(SAVERS["gemma-2b"](tmp_path / "m")), tmp_path / "run", **prompt)
    with pytest.raises(ConfigError, match="whose <start_of_turn> could not be told from the same in a text"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.SENTENCE_TRANSFORMERS)
    assert export(str(tmp_path / "run"), folder=tmp_path / "merged", to=Format.MERGED).smallest > 0.99999
    texts = ["a cat", "a <start_of_turn>cat"]
    loaded = Embedder.load(str(tmp_path / "merged"), precision="fp32")
    found, expected = (
        [row.tolist() for row in embedder.tokenizer.tokenize(texts, prompts=embedder.prompt_of()).ids]
        for embedder in (loaded, live)
    )
    assert found == expected
    turn = loaded.backbone.tokenizer.convert_tokens_to_ids("<start_of_turn>")
    assert [row.count(turn) for row in found] == [1, 1]


def test_taken_folders_and_empty_adapters(model_folders: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name, fault in (
        ("taken", "exists already"),
        ("taken/file", "is a file"),
        ("taken/file/below", "cannot be written: Not a directory"),
        ("dangling", "is a link to nothing"),
    ):
        with pytest.raises(RunError, match=fault):
            export(model_folders["llama"], folder=tmp_path / name, to=Format.MERGED)
    with pytest.raises(RunError, match="exists already"):
        export(model_folders["llama"], folder=Path(model_folders["llama"]), to=Format.MERGED)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dangling", "file", "taken"]
    embedder = Embedder.load(model_folders["llama"], precision="fp32", max_length=40)
    embedder.add_adapter(AdapterSection())
    embedder.save(tmp_path / "run" / "adapter")
    with pytest.raises(RunError, match="changes no embedding"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    assert run_command(["export", str(tmp_path / "run"), str(tmp_path / "x"), "--to", "gguf"]) == 2


@pytest.mark.parametrize("name", [".", "link", "../run/out"])
def test_folders_that_are_filled_or_made(
    name: str, model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = save_tuned(model_folders["llama"], tmp_path / "run")
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    for folder in (here, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(here)
    if name == "link":
        Path("link").symlink_to(elsewhere)
    before = here.stat().st_ino
    assert run_command(["export", "../run", name, "--to", "merged"]) == 0
    assert here.stat().st_ino == before
    assert (name == "link") == Path("link").is_symlink()
    np.testing.assert_allclose(Embedder.load(name, precision="fp32").encode(TEXTS), live.encode(TEXTS), atol=1e-5)


def test_a_filled_folder_stays_empty_when_nothing_is_kept(
    model_folders: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tuned(model_folders["llama"], tmp_path / "run")
    base = Embedder.load(model_folders["llama"], fused=False)
    monkeypatch.setattr(folders, "merge_adapter", lambda live: base.backbone.model)
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="does not embed as the model does"):
        export(str(tmp_path / "run"), folder=tmp_path / "out", to=Format.MERGED)
    assert not list((tmp_path / "out").iterdir())


def test_probe_texts_hold_long_and_odd_ones_and_control_tokens(llama: Embedder) -> None:
    texts = parity.probe_texts(llama)
    assert any(text.endswith("</s>") for text in texts)
    assert max(len(text.split()) for text in texts) > 300
    assert any(not text.isascii() for text in texts)
