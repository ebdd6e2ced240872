"""Training steps on fake CUDA tensors, run by `test_steps.py` in a process of its own with `device.cpp` preloaded.

Fake tensors have shapes, formats and devices and no numbers. What they show: a tensor left on the CPU, a value that is
read back from the GPU (an error), a backward that depends on the thread it runs in, how many kernels a step starts.
Prints one JSON object a case: `launches` by operation, or `error`.
"""

import json
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from embedsmith.model.layers import dropout
from embedsmith.model.layers.fused import linear
from embedsmith.model.layers.fused.decoder import FusedDecoder
from embedsmith.settings.choices import Pooling
from embedsmith.settings.config import AdapterSection
from embedsmith.settings.contrast import PLAIN, ContrastSection, Direction
from embedsmith.training.budget import TokenBudget
from embedsmith.training.gradcache import contrastive_step
from embedsmith.training.loss import info_nce, spread_out
from tests.meta_models import make_config, make_embedder
from tests.tiny import FAMILIES, SHAPE, TEXTS, WORDS

EVERY_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVERY_TERM = ContrastSection(
    directions=list(Direction),
    false_negative_margin=0.1,
    hardness_mode="all_negatives",
    hardness_form="importance",
)
_NO_KERNEL = ("aten::empty", "aten::new_empty", "aten::_unsafe_view", "aten::lift_fresh", "aten::resize_")


@dataclass(frozen=True)
class Case:
    """A step.

    Attributes:
        name: of the case.
        config: of the model.
        texts: three groups of one size: anchors, positives, negatives.
        is_encoding: forward without graph instead.
        terms: of the loss.
    """

    name: str
    config: Any
    texts: list[str] = field(default_factory=lambda: [*TEXTS[:2], *TEXTS[2:4], *TEXTS[5:7]])
    dtype: torch.dtype = torch.bfloat16
    fused: bool = True
    max_tokens: int = 10_000
    targets: list[str] | None = None
    is_encoding: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    terms: ContrastSection = PLAIN


def make_cases() -> Iterator[Case]:
    """All families through fused blocks, each with other settings, and what else is computed in another way."""
    every = {"phi": ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]}
    poolings, lengths = list(Pooling), (10_000, 12)
    for index, family in enumerate(("llama", "granite", "phi", "gemma2", "gemma3_text", "qwen3", "olmo2")):
        config = CONFIG_MAPPING[family](**{**SHAPE, **FAMILIES[family]})
        settings = {"pooling": poolings[index % 4], "bidirectional_layers": "all" if index % 3 == 2 else 0}
        yield Case(f"{family}, bf16", config, max_tokens=lengths[index % 2], settings=settings)
        if index < 4:
            targets = every.get(family, EVERY_LINEAR)
            yield Case(f"{family}, fp32, every layer", config, dtype=torch.float32, targets=targets)
    llama = CONFIG_MAPPING["llama"](**SHAPE)
    yield Case("plain, bf16", llama, fused=False, max_tokens=12, terms=EVERY_TERM)
    yield Case("plain, fp32", llama, fused=False, dtype=torch.float32, settings={"pooling": Pooling.MEAN})
    prompt = {"prompt": "the cat and the animal {text}"}
    yield Case("prompt, bf16", llama, settings=prompt)
    yield Case("prompt, fp32, pieces", llama, settings=prompt, dtype=torch.float32, max_tokens=20)
    texts = many_texts(180)
    smollm = make_config("SmolLM2-135M")
    yield Case("SmolLM2-135M, step", smollm, texts=texts)
    yield Case("SmolLM2-135M, encoding", smollm, texts=texts, is_encoding=True)
    yield Case("SmolLM2-135M, step, fp32", smollm, texts=texts, dtype=torch.float32)


def many_texts(number: int) -> list[str]:
    """Distinct texts of 4 to 25 words."""
    return [
        " ".join(WORDS[(7 * text + place) % len(WORDS)] for place in range(4 + text % 22)) for text in range(number)
    ]


class Launches(TorchDispatchMode):
    """Counts operations on the GPU that start a kernel; what goes through torch.compile counts as one."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.is_inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        first = output[0] if isinstance(output, tuple | list) and output else output
        is_on_gpu = isinstance(first, torch.Tensor) and first.is_cuda
        returns = func._schema.returns
        is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        if is_on_gpu and not is_view and not self.is_inside and not func._schema.name.startswith(_NO_KERNEL):
            self.counts[func._schema.name] += 1
        return output

    def compile(self, function: Callable, *, dynamic: bool) -> Callable:
        """In the place of torch.compile."""

        def run(*arguments: Any) -> Any:
            self.counts[function.__name__] += 1
            self.is_inside = True
            try:
                return function(*arguments)
            finally:
                self.is_inside = False

        return run


def _move_to_fake_gpu(network: torch.nn.Module) -> None:
    """Put a fake tensor of its shape in the place of every weight and buffer."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                fake = torch.empty(weight.shape, dtype=weight.dtype, device="cuda")
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda")


@contextmanager
def _real_draws() -> Iterator[None]:
    """Dropout seeds are drawn on the CPU and read there: the one thing that needs numbers."""
    draw = dropout.draw_mask

    def draw_really(p: float, *, rows: torch.Tensor | None = None) -> dropout.DropoutMask:
        with unset_fake_temporarily():
            mask = draw(p)
        return replace(mask, rows=rows)

    linear.draw_mask = dropout.draw_mask = draw_really
    try:
        yield
    finally:
        linear.draw_mask = dropout.draw_mask = draw


def _loss(rows: torch.Tensor, *, terms: ContrastSection) -> torch.Tensor:
    anchor, positive, negative = rows.chunk(3)
    loss = info_nce(
        anchor,
        positive,
        negative,
        temperature=0.05,
        hard_negative_weight=1.0 if terms is PLAIN else 2.0,
        terms=terms,
    )
    return loss if terms is PLAIN else loss + spread_out(anchor)


def run(case: Case) -> Counter[str]:
    """A step of the case; the kernels that it starts.

    Raises:
        AssertionError: the loss or a gradient is not where or what it should be.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    launches = Launches()
    torch.compile = launches.compile
    adapter = AdapterSection(lora_dropout=0.1, target_modules=case.targets)
    with torch.device("meta"):
        embedder = make_embedder(case.config, dtype=case.dtype, adapter=adapter, max_length=64, **case.settings)
    network = embedder.backbone.model
    with mode, _real_draws():
        _move_to_fake_gpu(network)
        assert embedder.device.type == "cuda"
        if case.fused:
            num_bidirectional = network.config.num_hidden_layers - embedder.causal_layers
            embedder.decoder = FusedDecoder(network, num_bidirectional=num_bidirectional)
            embedder.decoder.recordings = None  # no GPU is there to record
        packed = embedder.pack(case.texts)
        with launches:
            if case.is_encoding:
                with torch.no_grad():
                    assert embedder.embed(packed).is_cuda
                return launches.counts
            loss, _ = contrastive_step(
                packed,
                embedder=embedder,
                loss_of=lambda rows: _loss(rows, terms=case.terms),
                budget=TokenBudget(case.max_tokens),
                backward=torch.Tensor.backward,
            )
    assert loss.is_cuda and loss.dtype is torch.float32
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            gradient = weight.grad
            assert gradient is not None, f"{name} has no gradient"
            assert gradient.is_cuda and gradient.dtype is torch.float32 and gradient.shape == weight.shape, name
    return launches.counts


def main() -> None:
    """Run every case."""
    torch.set_num_threads(1)
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    for case in make_cases():
        found: dict[str, Any] = {"case": case.name}
        try:
            found["launches"] = run(case)
        except Exception:
            found["error"] = traceback.format_exc()
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
