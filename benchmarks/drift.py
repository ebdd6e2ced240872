"""How far bf16 drifts from float32 on real text: vectors, a similarity score, a step's loss and its gradients.

    python -m benchmarks.drift --models smollm2-135m gemma3-270m --triplets 'nli/*_triplets.tsv.gz' \
        --sts sts/STSBenchmark-dev.tsv.gz                          prints a Markdown table

A model is loaded in float32 and in bf16, one after the other, with one adapter (of rank 8, on query and value
projections, both of its factors random, so that both have gradients), and gets the same texts. On a processor without
bf16 products the same roundings are computed, slowly.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from accelerate import Accelerator

from benchmarks.tables import table
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.rows import Triplets
from embedsmith.data.triplets import load_triplets
from embedsmith.evaluation.correlation import spearman
from embedsmith.evaluation.sts import cosine_similarities
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Loss, Precision
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.training.batching import contrastive_batches
from embedsmith.training.budget import TokenBudget
from embedsmith.training.distributed import Processes
from embedsmith.training.loop import trained_parameters
from embedsmith.training.objective import Objective
from embedsmith.training.step import take_step

SEED = 7
FACTORS_STD = 0.02
"""Of the adapter's factors: its change of the weights is then about as large as after some hundred steps."""
_ALL_TOKENS = 2**20


@dataclass(frozen=True)
class Computed:
    """What one model computes in one precision.

    Attributes:
        is_fused: by the fused blocks.
        vectors: of the pairs' first and second texts, (2K, D) of length 1.
        losses: of each step, (num_steps,).
        gradients: of the adapter in each step, (num_steps, num_parameters).
    """

    is_fused: bool
    vectors: np.ndarray
    losses: np.ndarray
    gradients: np.ndarray

    def similarities(self) -> np.ndarray:
        """Of the pairs, (K,)."""
        return cosine_similarities(*np.split(self.vectors, 2))


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.drift", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["smollm2-135m", "gemma3-270m"], help="any MODEL")
    parser.add_argument("--triplets", nargs="+", required=True, help="files or globs")
    parser.add_argument("--sts", required=True, help="file of scored sentence pairs")
    parser.add_argument("--num-pairs", type=int, default=250, help="how many of them, drawn at random")
    parser.add_argument("--batch-size", type=int, default=16, help="triplets of a step")
    parser.add_argument("--steps", type=int, default=4, help="batches whose loss and gradients are compared")
    options = parser.parse_args()
    overrides = {"output_dir": "unused", "batch_size": str(options.batch_size), "lora_dropout": "0"}
    config = load_config(overrides=overrides)
    pairs = draw_pairs(load_pairs(options.sts), options.num_pairs)
    rows = load_triplets(options.triplets)
    drawn = contrastive_batches(rows.text_ids, batch_size=options.batch_size, seed=SEED)
    batches = [rows.rows(one) for one in islice(drawn, options.steps)]
    lines = []
    for model in options.models:
        exact, rounded = (
            compute(model, precision=one, pairs=pairs, batches=batches, config=config)
            for one in (Precision.FP32, Precision.BF16)
        )
        lines.append([f"`{model}`", *drift_cells(exact, rounded, gold=pairs.scores)])
    print(f"{len(pairs)} pairs of {options.sts}; {len(batches)} batches of {options.batch_size} triplets\n")
    print(table(HEADER, lines))


def draw_pairs(pairs: ScoredPairs, number: int) -> ScoredPairs:
    """Some of them, always the same ones."""
    drawn = np.random.default_rng(SEED).permutation(len(pairs))[:number]
    sides = ([side[index] for index in drawn] for side in (pairs.sentence1, pairs.sentence2))
    return ScoredPairs(*sides, pairs.scores[drawn])


def compute(
    model: str, *, precision: Precision, pairs: ScoredPairs, batches: Sequence[Triplets], config: RunConfig
) -> Computed:
    """Load the model in that precision, and let it embed and learn."""
    embedder = Embedder.load(model, precision=precision)
    embedder.add_adapter(config.adapter)
    parameters = trained_parameters(embedder)
    generator = torch.Generator().manual_seed(SEED)
    for parameter in parameters:
        parameter.data.normal_(std=FACTORS_STD, generator=generator)
    objective = Objective(Loss.INFO_NCE, config.training, config.teacher, widths=(embedder.dim,))
    processes = Processes(Accelerator(cpu=embedder.device.type == "cpu"))
    losses, gradients = [], []
    for batch in batches:
        budget = TokenBudget(_ALL_TOKENS)
        loss, _ = take_step(embedder, batch=batch, objective=objective, budget=budget, processes=processes)
        losses.append(loss.item())
        gradients.append(
            torch.cat([one.grad.flatten() for one in parameters if one.grad is not None]).numpy(force=True)
        )
        for parameter in parameters:
            parameter.grad = None
    vectors = embedder.encode([*pairs.sentence1, *pairs.sentence2])
    return Computed(not embedder.why_not_fused, vectors, np.array(losses), np.stack(gradients))


HEADER = [
    *("model", "cosine of a text's two vectors: smallest", "mean", "similarity of a pair: largest change"),
    *("Spearman x 100: float32", "bf16", "loss: float32", "largest change", "cosine of the gradients: smallest"),
]


def drift_cells(exact: Computed, rounded: Computed, *, gold: np.ndarray) -> list[str]:
    """A line of the table, without the model's name."""
    cosines = cosine_similarities(exact.vectors, rounded.vectors)
    change = np.abs(exact.similarities() - rounded.similarities()).max()
    return [
        f"{cosines.min():.5f}",
        f"{cosines.mean():.5f}",
        f"{change:.4f}",
        *(f"{100 * spearman(one.similarities(), gold):.2f}" for one in (exact, rounded)),
        f"{exact.losses.mean():.3f}",
        f"{np.abs(exact.losses - rounded.losses).max():.4f}",
        f"{cosine_similarities(exact.gradients, rounded.gradients).min():.4f}",
    ]


if __name__ == "__main__":
    main()
