"""What only a GPU can show, in the order in which to look: run these first where there is one.

    pytest tests/cuda

Everywhere else they are skipped; `tests/fake_cuda` and the tests of `layers/` see what can be seen without one.
"""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers import attention
from embedsmith.model.layers.dropout import DropoutMask
from embedsmith.model.layers.fused import recording
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.layers.segments import Segments
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.recipe import load_config
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import contrastive_step
from embedsmith.training.loss import info_nce
from embedsmith.verbs.doctor import diagnose
from embedsmith.verbs.train import resume_run, train
from tests.tiny import FAMILIES, TEXTS, write_triplets

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")
GPU = torch.device("cuda")
LENGTHS = (1, 2, 5, 5, 16, 33, 40, 150)
has_flash = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_1_the_doctor_finds_nothing_wrong_in_float32(family: str, model_folders: dict[str, str]) -> None:
    diagnosis = diagnose(model_folders[family], max_length=64, device="cuda")
    assert diagnosis.is_healthy, [finding for finding in diagnosis.findings if not finding.is_ok]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_2_vectors_are_those_of_a_cpu(family: str, precision: str, model_folders: dict[str, str]) -> None:
    options = {"max_length": 64, "precision": precision}
    found, expected = (Embedder.load(model_folders[family], device=one, **options) for one in ("cuda", "cpu"))
    cosines = np.einsum("kd,kd->k", found.encode(TEXTS), expected.encode(TEXTS))
    assert cosines.min() > (0.99999 if precision == "fp32" else 0.98)


@pytest.mark.skipif(not has_flash, reason="flash attention needs compute capability 8.0")
@pytest.mark.parametrize("head_dim", [64, 80, 256])
@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("sight", ["both ways", "causal", "prefix"])
@pytest.mark.parametrize("ends_only", [True, False])
@pytest.mark.parametrize("window", [None, 7])
def test_3_flash_attention_is_ours(head_dim: int, kv_heads: int, sight: str, ends_only: bool, window: int) -> None:
    """Forward and gradients against float32; bfloat16 rounds to 2^-9, sums of up to 150 of them are a little off."""
    prefixes = (-1, -1, 1, 1, -1, 1, 1, 1) if sight == "prefix" else ()
    ends = torch.tensor([0, *accumulate(LENGTHS)], dtype=torch.int32, device=GPU)
    segments = Segments(LENGTHS, ends, prefixes=prefixes)
    generator = torch.Generator(GPU).manual_seed(0)
    inputs = [
        torch.randn(sum(LENGTHS), heads, head_dim, device=GPU, generator=generator) for heads in (4, kv_heads, kv_heads)
    ]
    shape = {"sliding_window": window, "is_causal": sight != "both ways", "ends_only": ends_only}
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (tensor.to(dtype).requires_grad_() for tensor in inputs)
        queries = q[segments.ends] if ends_only else q
        assert attention.takes_varlen(queries) == (dtype is torch.bfloat16)
        output = attention.segment_attention(queries, k, v, segments, **shape)
        gradients = torch.autograd.grad(output.float().square().sum(), [q, k, v])
        results.append([output.float(), *(gradient.float() for gradient in gradients)])
    for exact, rounded in zip(*results, strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_4_pieces_give_the_gradients_of_the_whole(precision: str, model_folders: dict[str, str]) -> None:
    found = []
    for max_tokens in (10_000, 12):
        embedder = Embedder.load(model_folders["llama"], precision=precision, max_length=64, device="cuda")
        torch.manual_seed(3)
        embedder.add_adapter(AdapterSection(lora_dropout=0.3))
        packed = embedder.pack([*TEXTS[:2], *TEXTS[2:4], *TEXTS[5:7]])
        contrastive_step(
            packed,
            embedder=embedder,
            loss_of=lambda rows: info_nce(*rows.chunk(3), temperature=0.1),
            budget=TokenBudget(max_tokens),
            backward=torch.Tensor.backward,
        )
        weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
        found.append(torch.cat([weight.grad.flatten() for weight in weights]))
    assert (found[1] - found[0]).norm() < (1e-3 if precision == "fp32" else 0.05) * found[0].norm()


def test_5_compiled_kernels_and_masks_are_those_of_a_cpu() -> None:
    compiled, plain = TorchKernels(is_compiled=True), TorchKernels()
    x = torch.randn(70, 64)
    for mask in (DropoutMask((1, 2**32 - 5), 0.3), DropoutMask((7, 9), 0.3, first_row=2**31)):
        found = compiled.project(x.to(GPU), torch.eye(64, device=GPU), mask=mask, scale=1.0)
        expected = plain.project(x, torch.eye(64), mask=mask, scale=1.0)
        assert torch.equal(found.cpu() == 0, expected == 0)
        torch.testing.assert_close(found.cpu(), expected)


def test_6_a_run_trains_and_goes_on(tmp_path: Path, cache: Path, model_folders: dict[str, str]) -> None:
    write_triplets(tmp_path / "t.tsv", num_rows=40)
    settings = {
        "output_dir": str(tmp_path / "run"),
        "model.model": model_folders["llama"],
        "max_length": "64",
        "data.train": str(tmp_path / "t.tsv"),
        "dev": "none",
        "batch_size": "6",
        "max_steps": "6",
        "warmup_steps": "1",
        "learning_rate": "1e-2",
    }
    run = train(load_config(overrides=settings), device="cuda")
    assert run.outcome.num_steps == 6
    assert resume_run(tmp_path / "run", device="cuda").outcome.num_steps == 6


@pytest.mark.skipif(not has_flash, reason="only runs with flash attention are recorded")
@pytest.mark.parametrize("family", ["llama", "phi", "mistral", "gemma3_text"])
@pytest.mark.parametrize("max_tokens", [10_000, 30])
def test_7_recorded_runs_are_those_that_are_not(
    family: str, max_tokens: int, model_folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under a prompt and with dropout, step after step, while texts and weights change."""
    monkeypatch.setattr(recording, "_MEETINGS_BEFORE", 1)
    monkeypatch.setattr(recording, "_SHARE_OF_FREE", 1.0)
    settings = {"prompt": "the cat and the animal {text} runs", "end_token": False}
    embedder = Embedder.load(model_folders[family], precision="bf16", max_length=64, device="cuda", **settings)
    embedder.add_adapter(AdapterSection(lora_dropout=0.3, target_modules=["all-linear"]))
    assert embedder.decoder is not None and embedder.decoder.recordings is not None
    recordings = embedder.decoder.recordings
    weights = [weight for weight in embedder.backbone.model.parameters() if weight.requires_grad]
    for step in range(5):
        texts = TEXTS[step:] + TEXTS[:step]
        found = []
        for embedder.decoder.recordings in (recordings, None):
            embedder.backbone.model.zero_grad()
            torch.manual_seed(step)
            contrastive_step(
                embedder.pack(texts[:6]),
                embedder=embedder,
                loss_of=lambda rows: info_nce(*rows.chunk(3), temperature=0.1),
                budget=TokenBudget(max_tokens),
                backward=torch.Tensor.backward,
            )
            gradient = torch.cat([weight.grad.flatten() for weight in weights])
            found.append((gradient, torch.from_numpy(embedder.encode(TEXTS))))
        for recorded, expected in zip(*found, strict=True):
            assert (recorded - expected).norm() < 0.05 * expected.norm()
        with torch.no_grad():
            for weight in weights:
                weight += 0.02 * torch.randn_like(weight)
    assert recordings.num_recorded > 0
