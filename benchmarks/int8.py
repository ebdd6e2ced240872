"""What int8 products would cost in quality: STS scores of one model in fp32, bf16, and with int8 products simulated.

python -m benchmarks.int8 --model runs/int8 --sts sts/STSBenchmark-test.tsv.gz     prints a Markdown table

The simulation is the best that plain rounding gives: weights in 8 bits with a scale a row, inputs in 8 bits with a
scale a token, sums and everything else in float32.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from benchmarks.tables import table
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.sts import cosine_similarities, score_task
from embedsmith.model.embedder import Embedder

LARGEST = 127  # of a signed byte
NEAR = 0.9995  # a cosine


def main() -> None:
    """Encode, score and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.int8", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m", help="a built-in name, a folder, or a finished run")
    parser.add_argument("--sts", required=True, help="file of scored sentence pairs")
    options = parser.parse_args()
    pairs = load_pairs(options.sts)
    exact = Embedder.load(options.model, precision="fp32", fused=False)
    wanted = exact.encode(_texts(pairs))
    lines = [_line("fp32", wanted, wanted, pairs)]
    for name, fused in (("bf16", True), ("bf16, blocks not fused", False)):
        rounded = Embedder.load(options.model, precision="bf16", fused=fused)
        lines.append(_line(name, rounded.encode(_texts(pairs)), wanted, pairs))
    for name, kept in (("int8, but for the MLP's last", ("down_proj",)), ("int8", ())):
        with _rounded(exact.backbone.model, kept=kept):
            lines.append(_line(name, exact.encode(_texts(pairs)), wanted, pairs))
    print(table(["products", "Spearman x 100", "cosine to fp32, mean", "smallest", f"texts below {NEAR}"], lines))


def _texts(pairs: ScoredPairs) -> list[str]:
    return [*pairs.sentence1, *pairs.sentence2]


def _line(name: str, vectors: np.ndarray, wanted: np.ndarray, pairs: ScoredPairs) -> list[str]:
    half = len(pairs.sentence1)
    score = score_task(cosine_similarities(vectors[:half], vectors[half:]), pairs.scores)
    cosines = cosine_similarities(vectors, wanted)
    far = f"{np.sum(cosines < NEAR)} of {len(cosines)}"
    return [name, f"{100 * score.cosine_spearman:.2f}", f"{cosines.mean():.5f}", f"{cosines.min():.5f}", far]


@contextmanager
def _rounded(model: nn.Module, *, kept: tuple[str, ...]) -> Iterator[None]:
    """Round weights and inputs of every frozen product of the layers, but of those whose name ends in one of `kept`."""
    handles, weights = [], {}
    for name, module in model.named_modules():
        name = name.removesuffix(".base_layer")
        is_product = isinstance(module, nn.Linear) and "lora_" not in name and "layers." in name
        if not is_product or name.endswith(kept):
            continue
        weights[module] = module.weight.data
        module.weight.data = _round(module.weight.data)
        handles.append(module.register_forward_pre_hook(lambda _, inputs: (_round(inputs[0]),)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, weight in weights.items():
            module.weight.data = weight


def _round(rows: torch.Tensor) -> torch.Tensor:
    """Each row (..., K) in 8 bits with a scale of its own, and back."""
    scale = rows.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / LARGEST
    return (rows / scale).round() * scale


if __name__ == "__main__":
    main()
