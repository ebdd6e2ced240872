"""What the tests of the fused decoder share: kernels to choose from, embedders on tiny models, gradients of a run."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.model.embedder import Embedder
from embedsmith.model.layers.fused.build import find_compiler, load_library
from embedsmith.model.layers.fused.c_kernels import CKernels
from embedsmith.model.layers.fused.decoder import FusedDecoder
from embedsmith.model.layers.fused.kernels import Kernels
from embedsmith.model.layers.fused.recording import Recorder
from embedsmith.model.layers.fused.torch_kernels import TorchKernels
from embedsmith.model.layers.segments import PackedTexts
from embedsmith.settings.config import AdapterSection
from tests.tiny import FAMILIES, SHAPE, make_tokenizer


def has_compiler() -> bool:
    """Whether one works. It compiles nothing of ours: a fault in that must not skip the tests of it."""
    if (compiler := find_compiler()) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("int nothing;\n", encoding="utf-8")
        command = [*compiler.split(), "-fopenmp", "-shared", "-fPIC", "-o", f"{folder}/empty.so", str(source)]
        try:
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            return False


needs_compiler = pytest.mark.skipif(not has_compiler(), reason="no C compiler on this machine")
BOTH_KERNELS = [pytest.param("C", marks=needs_compiler), "torch"]
# bfloat16 has products of its own besides, where the processor can.
BFLOAT16_KERNELS = [*BOTH_KERNELS, pytest.param("C, torch's products", marks=needs_compiler)]
EVERY_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
EVERY_LINEAR_PHI = ("q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2")
EVERY_LINEAR_PHI3 = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")


def make_kernels(name: str) -> Kernels:
    if name == "torch":
        return TorchKernels()
    kernels = CKernels(load_library())
    if name != "C":
        kernels.products = None
    return kernels


def every_linear(family: str) -> list[str]:
    return list({"phi": EVERY_LINEAR_PHI, "phi3": EVERY_LINEAR_PHI3}.get(family, EVERY_LINEAR))


def load(
    folder: str | Path,
    *,
    kernels: str | None = None,
    targets: list[str] | None = None,
    pooling: str = "last",
    precision: str = "fp32",
    dropout: float = 0.0,
    max_length: int = 64,
    recorder: Recorder | None = None,
) -> Embedder:
    """An embedder with the same random A and B every time. `kernels`: as in the lists above; None: the plain path."""
    embedder = Embedder.load(
        str(folder), precision=precision, max_length=max_length, pooling=pooling, fused=kernels == "C"
    )
    if kernels not in ("C", None):
        embedder.decoder = FusedDecoder(embedder.backbone.model, kernels=make_kernels(kernels), recorder=recorder)
    assert (embedder.decoder.kernels.name if embedder.decoder else None) == (kernels and kernels.split(",")[0])
    embedder.add_adapter(AdapterSection(lora_r=5, lora_dropout=dropout, target_modules=targets))
    generator = torch.Generator().manual_seed(7)
    for _, weight in adapter_weights(embedder):
        weight.data.normal_(std=0.05, generator=generator)
    return embedder


def adapter_weights(embedder: Embedder) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, weight) for name, weight in embedder.backbone.model.named_parameters() if weight.requires_grad]


@dataclass(frozen=True)
class Run:
    """Embeddings of one forward, and the adapter's gradients by name."""

    embeddings: torch.Tensor
    gradients: dict[str, torch.Tensor]


def run(embedder: Embedder, texts: list[str], *, is_training: bool = False) -> Run:
    """Forward and backward of texts; see `run_packed`."""
    return run_packed(embedder, embedder.pack(texts), is_training=is_training)


def run_packed(embedder: Embedder, packed: PackedTexts, *, is_training: bool = False) -> Run:
    """Forward and backward; the loss is a fixed random combination of the embeddings."""
    for _, weight in adapter_weights(embedder):
        weight.grad = None
    with embedder.dropout(is_on=is_training):
        torch.manual_seed(5)
        embeddings = embedder.embed(packed)
        target = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(6))
        (embeddings * target).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in adapter_weights(embedder) if weight.grad is not None}
    return Run(embeddings.detach(), gradients)


def distance(value: torch.Tensor, expected: torch.Tensor) -> float:
    """||a - b|| / ||b||."""
    return float((value.double() - expected.double()).norm() / expected.double().norm())


def assert_same_run(actual: Run, expected: Run, *, tolerance: float = 1e-5) -> None:
    """Equal but for float32 rounding: measured 3e-7 in embeddings and 2e-6 of a gradient's norm.

    A gradient that is zero but for rounding (of queries that see one key) is measured against all of them together:
    1e-7 of them were seen, and five times that, eight roundings of 2^-24, are allowed.
    """
    torch.testing.assert_close(actual.embeddings, expected.embeddings, rtol=0, atol=1e-5)
    assert actual.gradients.keys() == expected.gradients.keys()
    assert expected.gradients
    floor = 5e-2 * float(joined(expected.gradients).norm())
    errors = {
        name: float((actual.gradients[name] - gradient).norm()) / max(float(gradient.norm()), floor)
        for name, gradient in expected.gradients.items()
    }
    assert {name: error for name, error in errors.items() if not error <= tolerance} == {}


def joined(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def save_variant(family: str, folder: Path, **changes: object) -> Path:
    """As `tiny.save_model` with fields of the config changed, tamer, and with biases and norms that do something.

    Tamer, because rounding grows with the width of the start: on tiny's own models, changing the embeddings' last bit
    moves gradients by 9e-6, here by 3e-6 at most. Without a start token, so that the empty text is one token long,
    and with another padding token, whose embedding is zero.
    """
    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](
        **{**SHAPE, "pad_token_id": 0, "initializer_range": 0.1, **FAMILIES[family], **changes}
    )
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight += 0.2 * torch.randn(weight.shape)
    model.save_pretrained(folder)
    make_tokenizer(with_start_token=False).save_pretrained(folder)
    return folder
