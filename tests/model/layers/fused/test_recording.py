"""Recorded runs equal those that are not, on rows of a few sizes; here Python repeats what a GPU's graph would."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers import attention
from embedsmith.model.layers.fused import recording
from embedsmith.model.layers.fused.fixed_row import FixedRow, RowShape
from embedsmith.model.layers.segments import PackedTexts, Segments
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import PIECE_TOKENS, contrastive_step
from embedsmith.training.loss import info_nce
from tests.model.layers.fused.cases import Run, adapter_weights, assert_same_run, every_linear, load, run_packed
from tests.model.layers.varlen import varlen_attn
from tests.tiny import FAMILIES, TEXTS, save_model

OTHER_TEXTS = ["the wind blows", "two men", "rain falls in the park", "a roof", "the old cat", "an animal runs", "sea"]
LONG_TEXTS = [f"{'the cat ' * 30}{word}" for word in ("sleeps", "runs", "falls", "plays")]
GRAPHED = [family for family in FAMILIES if family != "gemma2"]  # soft-capped scores: no flash attention


class Repeats:
    """In the place of CUDA graphs: what was recorded is called again."""

    def __init__(self) -> None:
        self.num_recorded = 0

    def warm_up(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def record(self, function: Callable[[], Any]) -> Callable[[], Any]:
        self.num_recorded += 1
        return function

    def free_bytes(self) -> float:
        return 1e12


@pytest.fixture(autouse=True)
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "takes_varlen", lambda query: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(recording, "_MEETINGS_BEFORE", 0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save_model(family, root / family, with_start_token=False) for family in FAMILIES}


def both(folder: Path, **settings: Any) -> tuple[Embedder, Embedder, Repeats]:
    """The same embedder twice, the second one with recordings."""
    recorder = Repeats()
    plain, recorded = (load(folder, kernels="torch", recorder=one, **settings) for one in (None, recorder))
    return plain, recorded, recorder


@pytest.mark.parametrize("pooling", ["last", "mean"])
@pytest.mark.parametrize("family", GRAPHED)
def test_equal_to_the_run_that_is_not_recorded(folders: dict[str, Path], family: str, pooling: str) -> None:
    """With dropout, and again with other texts."""
    settings = {"targets": every_linear(family), "pooling": pooling, "dropout": 0.3}
    plain, recorded, recorder = both(folders[family], **settings)
    for texts in (TEXTS, OTHER_TEXTS, TEXTS[::-1]):
        found, expected = (run_packed(one, one.pack(texts), is_training=True) for one in (recorded, plain))
        assert_same_run(found, expected)
    shapes = {RowShape.of(plain.pack(texts)) for texts in (TEXTS, OTHER_TEXTS)}
    assert recorder.num_recorded == 2 * len(shapes)  # forward and backward


@pytest.mark.parametrize("family", ["llama", "phi", "mistral", "gemma3_text"])
def test_texts_that_share_a_prefix(folders: dict[str, Path], family: str) -> None:
    plain, recorded, recorder = both(folders[family], targets=every_linear(family), dropout=0.3)
    shapes = set()
    for texts in (TEXTS, OTHER_TEXTS, TEXTS[::-1]):
        rows = [one.pack(texts, prompts=_prompts(len(texts))) for one in (recorded, plain)]
        assert len(set(rows[0].segments.prefixes)) == 3
        found, expected = (
            run_packed(one, row, is_training=True) for one, row in zip((recorded, plain), rows, strict=True)
        )
        assert_same_run(found, expected)
        shapes.add(RowShape.of(rows[0]))
    assert recorder.num_recorded == 2 * len(shapes) < 6


def _prompts(number: int) -> list[Prompt]:
    templates = ("the old cat and the animal {text} sleeps", "two men play chess {text}", "{text} runs")
    kinds = [read_prompt(template) for template in templates]
    return [kinds[place % 3] for place in range(number)]


@pytest.mark.parametrize("max_tokens", [12, 30, 10_000])
def test_a_step_in_pieces(folders: dict[str, Path], max_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that wait for their backward, others meanwhile, prefixes repeated in each, and a tape for all."""
    monkeypatch.setitem(PIECE_TOKENS, "cpu", 30)
    plain, recorded, recorder = both(folders["llama"], targets=every_linear("llama"), dropout=0.3)
    found = []
    for embedder in (plain, recorded):
        for _ in range(2):
            for _, weight in adapter_weights(embedder):
                weight.grad = None
            torch.manual_seed(3)
            loss, _ = contrastive_step(
                embedder.pack(TEXTS[:6], prompts=_prompts(6)),
                embedder=embedder,
                loss_of=lambda rows: info_nce(*rows.chunk(3), temperature=0.1),
                budget=TokenBudget(max_tokens),
                backward=torch.Tensor.backward,
            )
        after = torch.rand(()).item()  # as many seeds were drawn
        gradients = {name: weight.grad for name, weight in adapter_weights(embedder)}
        found.append((Run(loss[None], gradients), after))
    assert recorder.num_recorded > 0
    assert_same_run(found[1][0], found[0][0])
    assert found[0][1] == found[1][1]


def test_while_a_backward_may_come_nothing_is_repeated(folders: dict[str, Path]) -> None:
    _, embedder, recorder = both(folders["llama"])
    texts = embedder.pack(TEXTS)
    first = embedder.embed(texts)
    assert recorder.num_recorded == 2
    with torch.no_grad():
        embedder.embed(texts)
    assert recorder.num_recorded == 2
    first.sum().backward()
    with torch.no_grad():
        embedder.embed(texts)
    assert recorder.num_recorded == 3
    given_up = embedder.embed(texts)
    del given_up  # nobody can ask for its backward
    with torch.no_grad():
        embedder.embed(embedder.pack(LONG_TEXTS))
    assert recorder.num_recorded == 4


def test_other_weights_or_another_dropout_are_another_run(folders: dict[str, Path]) -> None:
    plain, embedder, recorder = both(folders["llama"], dropout=0.3)
    row = embedder.pack(TEXTS)
    with torch.no_grad():
        embedder.embed(row)
        with embedder.dropout(is_on=True):
            embedder.embed(row)
        with embedder.without_adapter():
            bare = embedder.embed(row)
        assert recorder.num_recorded == 3
        adapted = embedder.embed(row)
        for _, weight in adapter_weights(embedder):
            weight.mul_(2)  # in place: the same run reads other values
        assert recorder.num_recorded == 3
        assert not torch.allclose(embedder.embed(row), adapted)
        with plain.without_adapter():
            torch.testing.assert_close(bare, plain.embed(row), rtol=0, atol=1e-5)


def test_it_waits_until_a_shape_has_been_met(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_MEETINGS_BEFORE", 2)
    monkeypatch.setattr(recording, "_MOST_SHAPES", 1)
    _, embedder, recorder = both(folders["llama"])
    with torch.no_grad():
        for texts, expected in ((TEXTS, 0), (TEXTS, 0), (TEXTS, 1), (TEXTS, 1), (LONG_TEXTS, 1)):
            embedder.embed(embedder.pack(texts))
            assert recorder.num_recorded == expected
        for _ in range(2):  # in the place of the other one, which is recorded anew when it comes again
            embedder.embed(embedder.pack(LONG_TEXTS))
        embedder.embed(embedder.pack(TEXTS))
    assert recorder.num_recorded == 3


@pytest.mark.parametrize(("name", "value"), [("_MOST_OPERATIONS", 1.0), ("_SHARE_OF_FREE", 1e-12)])
def test_what_is_large_is_not_recorded(
    folders: dict[str, Path], name: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, name, value)
    _, embedder, recorder = both(folders["llama"])
    embedder.embed(embedder.pack(TEXTS))
    assert recorder.num_recorded == 0


def test_where_recording_fails_it_is_said_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain, embedder, recorder = both(folders["llama"], dropout=0.3)

    def fail(function: Callable[[], Any]) -> Callable[[], Any]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorder, "record", fail)
    for _ in range(2):
        found, expected = (run_packed(one, one.pack(TEXTS), is_training=True) for one in (embedder, plain))
        assert_same_run(found, expected)
    assert [record.message for record in caplog.records if "CUDA graph" in record.message] == [
        "A run could not be recorded as a CUDA graph (operation not permitted when stream is capturing); steps start "
        "their kernels one by one, which is slower."
    ]


@given(
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=60),
    before=st.integers(0, 40),
    has_prefix=st.booleans(),
)
def test_fillers_fill_the_row(lengths: list[int], before: int, has_prefix: bool) -> None:
    """No segment is empty, texts lie where they did, fillers are no longer than the bound."""
    prefixes: tuple[int, ...] = ()
    if has_prefix:
        prefixes = (-1, *(0 if number % 3 else -1 for number in range(len(lengths))))
        lengths = [1 + before, *lengths]
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    segments = Segments(tuple(lengths), ends, prefixes=prefixes if any(place >= 0 for place in prefixes) else ())
    ids = torch.arange(3, 3 + sum(lengths))[None]
    row = PackedTexts(ids, ids, segments, torch.arange(len(lengths)))
    shape = RowShape.of(row)
    fixed = FixedRow(shape, device=torch.device("cpu"))
    fixed.fill(row)
    found = fixed.packed.segments
    own, whole = found.cu_seqlens.diff(), found.text_seqlens.diff()
    assert own.min() >= 1 and torch.all(whole >= own)
    assert own.sum() == shape.num_tokens == len(found.positions)
    assert whole.max() <= shape.longest and found.positions.max() < shape.longest
    number = len(lengths)
    assert torch.equal(own[:number], segments.cu_seqlens.diff())
    assert torch.equal(found.positions[: sum(lengths)], segments.positions)
    assert torch.equal(found.ends, found.cu_seqlens[1:].long() - 1)
    assert torch.equal(fixed.packed.input_ids[:, : sum(lengths)], ids)
    if segments.prefixes:
        assert segments.text_rows is not None and found.text_rows is not None
        assert torch.equal(found.text_rows[: len(segments.text_rows)], segments.text_rows)
        fillers = found.text_rows[len(segments.text_rows) :]
        starts, sizes = found.cu_seqlens[number:-1].long(), whole[number:].long()
        assert torch.all(fillers >= starts.repeat_interleave(sizes))
        last = torch.cumsum(sizes, 0) - 1
        assert torch.equal(fillers[last], found.ends[number:])
    assert shape.num_tokens <= 1.2 * sum(lengths) + 200  # what is left over stays small
