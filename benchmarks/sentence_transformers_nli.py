"""What sentence-transformers makes of the same triplets in the same time, by its own recommended settings.

python -m benchmarks.sentence_transformers_nli MODEL --triplets 'nli/*_triplets.tsv.gz' --minutes 10 --out runs/st

Without --static it is its NLI example (examples/sentence_transformer/training/nli/training_nli_v2.py): every weight,
batches of 128 without duplicates, multiple-negatives ranking loss, learning rate 2e-5, a tenth of the steps to warm up;
mean pooling, as for any body without a pooling of its own. A batch is embedded 32 texts at a time, and again with its
gradients (its CachedMultipleNegativesRankingLoss): half of one ran out of memory (docs/performance.md). With --static
it is its recipe for static models (Aarsen 2025, huggingface.co/blog/static-embeddings): a table of vectors by token,
begun at MODEL's own, batches of 2,048, learning rate 2e-1. As many steps as fit into the time are found by a few steps
beforehand, which do not count.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, Transformer
from sentence_transformers.sentence_transformer.training_args import BatchSamplers

from benchmarks.models import make_plain_folder
from embedsmith.data.triplets import load_triplets
from embedsmith.model.loading.sources import source_of

_TRIAL_STEPS = 2
_TEXTS_AT_ONCE = 32
_MAX_LENGTH = 150


@dataclass(frozen=True)
class Settings:
    """What its examples recommend."""

    batch_size: int
    learning_rate: float


TRANSFORMER = Settings(batch_size=128, learning_rate=2e-5)
STATIC = Settings(batch_size=2048, learning_rate=2e-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and save."""
    options = _parse(arguments)
    settings = STATIC if options.static else TRANSFORMER
    make = make_static if options.static else make_transformer
    triplets = load_triplets(options.triplets)
    anchors, positives, negatives = triplets.rows(np.arange(len(triplets))).groups()
    data = Dataset.from_dict({"anchor": anchors, "positive": positives, "negative": negatives}).shuffle(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        base = make_plain_folder(Path(source_of(options.model)), Path(folder) / "base", end_token=False)
        seconds = train(make(base), data, settings, num_steps=_TRIAL_STEPS, seed=options.seed) / _TRIAL_STEPS
        num_steps = max(1, int(options.minutes * 60 / seconds))
        model = make(base)
        taken = train(model, data, settings, num_steps=num_steps, seed=options.seed)
        model.save(str(options.out))
    print(f"{num_steps} steps of {settings.batch_size} in {taken:.0f} s. The model: {options.out}")


def make_transformer(base: Path) -> SentenceTransformer:
    """A base with mean pooling, in float32; it has no chat template, which would be put around every text."""
    transformer = Transformer(str(base), max_seq_length=_MAX_LENGTH, model_kwargs={"dtype": torch.float32})
    return SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")


def make_static(base: Path) -> SentenceTransformer:
    """A table of a base's input embeddings."""
    transformer = make_transformer(base)[0]
    weights = transformer.model.get_input_embeddings().weight.detach().float().clone()
    return SentenceTransformer(
        modules=[StaticEmbedding(transformer.tokenizer, embedding_weights=weights)], device="cpu"
    )


def train(model: SentenceTransformer, data: Dataset, settings: Settings, *, num_steps: int, seed: int) -> float:
    """Train in place; returns the seconds that the steps took."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=num_steps,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                warmup_steps=0.1,
                batch_sampler=BatchSamplers.NO_DUPLICATES,
                seed=seed,
                use_cpu=True,
                save_strategy="no",
                report_to=[],
            ),
            train_dataset=data,
            loss=_loss(model),
        )
        started = time.perf_counter()
        trainer.train()
        return time.perf_counter() - started


def _loss(model: SentenceTransformer) -> torch.nn.Module:
    if isinstance(model[0], StaticEmbedding):  # it takes no batch in pieces, and needs none
        return MultipleNegativesRankingLoss(model)
    return CachedMultipleNegativesRankingLoss(model, mini_batch_size=_TEXTS_AT_ONCE)


def _parse(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sentence_transformers_nli",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", help="built-in name, hub id or folder of a decoder")
    parser.add_argument("--triplets", nargs="+", required=True, help="files or globs of triplets")
    parser.add_argument("--minutes", type=float, required=True, help="of training")
    parser.add_argument("--static", action="store_true", help="a static model instead")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
