"""What smaller vectors and a static model cost in quality, and gain: a model's STS score beside theirs, sizes, speed.

python -m benchmarks.vectors --model smollm2-135m-sts --sts sts/STSBenchmark-test.tsv.gz \
    --calibration sts/STSBenchmark-dev.tsv.gz --static out-static     prints two Markdown tables

The model's vectors are kept in the cache. Differences are to its float32 vectors, with the paired bootstrap's 95 %
interval over the pairs and the permutation test's p, corrected for all rows. Searching is exact, of random vectors, by
usearch (embedsmith[index]) on one thread, the best of three.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.tables import table
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.evaluation.significance import SeedScores, TaskScores, compare
from embedsmith.evaluation.sts import cosine_similarities, pair_similarities
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import EmbeddingModel, load_embedding_model
from embedsmith.model.kept_vectors import keep_vectors
from embedsmith.model.loading.fingerprint import fingerprint_model
from embedsmith.model.sentence_encoder import SentenceEncoder
from embedsmith.model.vector_precision import IN_STEPS, Ranges, as_numbers, quantize_vectors
from embedsmith.records.results import Comparison
from embedsmith.settings.choices import Side, VectorPrecision

TASK = "pairs"
FORMATS = (VectorPrecision.FLOAT32, VectorPrecision.INT8, VectorPrecision.UINT8, VectorPrecision.UBINARY)
SEARCHED = (VectorPrecision.FLOAT32, VectorPrecision.INT8, VectorPrecision.UBINARY)
PRODUCT, VALUES = "product", "values"
HOW = {
    "float32": "float32, cosine",
    "int8": "int8, cosine of the numbers",
    "uint8": "uint8, cosine of the numbers",
    "ubinary": "binary or ubinary, equal bits",
    PRODUCT: "int8, product of the numbers",
    VALUES: "int8 or uint8, cosine of the values that they stand for",
}
FLOAT = HOW["float32"]
_NUM_SEARCHED = 100_000
_NUM_QUERIES = 50
_NUM_TIMED = 512  # texts of the model; a static one gets all
_ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """One way to keep and compare vectors.

    Attributes:
        vector_bytes: of one.
        search_s: of one query among `_NUM_SEARCHED`; None: not measured.
        similarities: of all pairs, (K,).
    """

    vector_bytes: int
    search_s: float | None
    similarities: np.ndarray


def main() -> None:
    """Encode, score, time and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vectors", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-sts", help="a built-in name, a folder, or a finished run")
    parser.add_argument("--sts", required=True, help="file of scored sentence pairs")
    parser.add_argument("--calibration", required=True, help="another one, whose texts the ranges are taken of")
    parser.add_argument("--static", nargs="*", default=[], help="folders of static models made of the model")
    options = parser.parse_args()
    pairs, others = load_pairs(options.sts), load_pairs(options.calibration)
    embedder = Embedder.load(options.model)
    weights = fingerprint_model(options.model)
    vectors, sample = (
        np.asarray(keep_vectors(_texts(one), embedder=embedder, weights=weights, name=options.model, side=Side.QUERY))
        for one in (pairs, others)
    )
    forms = measure_forms(vectors, pairs, ranges=Ranges.of(sample))
    statics = {folder: load_embedding_model(folder) for folder in options.static}
    of_statics = {
        folder: pair_similarities(lambda texts, one=one: {"": one.encode(texts, side=Side.QUERY)}, pairs)[""]
        for folder, one in statics.items()
    }
    found = compare_all({**{name: form.similarities for name, form in forms.items()}, **of_statics}, pairs)
    print(f"{len(pairs)} pairs of {len(vectors)} texts; ranges of {len(sample)} texts\n")
    print(vectors_table(forms, found))
    print(models_table(options.model, embedder, statics, found, texts=_texts(pairs)))


def measure_forms(vectors: np.ndarray, pairs: ScoredPairs, *, ranges: Ranges) -> dict[str, Form]:
    """Every way to keep and compare the vectors (K, D) of the pairs' texts, float32 first."""
    dim = vectors.shape[1]
    kept = {
        one: quantize_vectors(vectors, vector_precision=one, ranges=ranges if one in IN_STEPS else None)
        for one in FORMATS
    }
    numbers = {one: as_numbers(rows, vector_precision=one, dim=dim) for one, rows in kept.items()}
    lowest, highest = ranges.bounds
    rows1, rows2 = (_rows(one, pairs) for one in (pairs.sentence1, pairs.sentence2))
    int8 = numbers[VectorPrecision.INT8]
    values = lowest + (highest - lowest) / 255 * numbers[VectorPrecision.UINT8]
    similarities = {
        **{one: cosine_similarities(rows[rows1], rows[rows2]) for one, rows in numbers.items()},
        PRODUCT: np.einsum("kd,kd->k", int8[rows1], int8[rows2]),
        VALUES: cosine_similarities(values[rows1], values[rows2]),
    }
    return {
        HOW[name]: Form(
            kept.get(name, kept[VectorPrecision.INT8])[0].nbytes,
            _search_seconds(VectorPrecision(name), ranges=ranges) if name in SEARCHED else None,
            found,
        )
        for name, found in similarities.items()
    }


def compare_all(similarities: Mapping[str, np.ndarray], pairs: ScoredPairs) -> dict[str, Comparison]:
    """By name, each but the first against the first: these very vectors, so that only the pairs are chance."""
    models = {name: SeedScores([values]) for name, values in similarities.items()}
    return {one.model: one for one in compare({TASK: TaskScores(pairs.scores, models)}, seed_spread=0)}


def vectors_table(forms: Mapping[str, Form], found: Mapping[str, Comparison]) -> str:
    """A line for each way to keep vectors."""
    header = ["vectors, and how they are compared", "bytes a vector", *_SCORE_COLUMNS, "ms a query"]
    lines = [
        [
            name,
            f"{form.vector_bytes:,}",
            *_score_cells(name, found),
            f"{1000 * form.search_s:.1f}" if form.search_s else "-",
        ]
        for name, form in forms.items()
    ]
    return table(header, lines)


def models_table(
    model: str,
    embedder: Embedder,
    statics: Mapping[str, Embedder | SentenceEncoder],
    found: Mapping[str, Comparison],
    *,
    texts: list[str],
) -> str:
    """The model, and the static ones made of it."""
    named = embedder.transformer.named_parameters()
    num_weights = sum(one.numel() for name, one in named if "lora_" not in name)  # as it is exported
    of_model = [model, f"{embedder.dim}", f"{2 * num_weights:,} (bf16)", *_score_cells(FLOAT, found)]
    lines = [[*of_model, _rate(embedder, texts[:: max(1, len(texts) // _NUM_TIMED)])]]
    for folder, one in statics.items():
        size = (Path(folder) / "model.safetensors").stat().st_size
        lines.append([f"static, {one.dim} dimensions", f"{one.dim}", f"{size:,} (fp32)", *_score_cells(folder, found)])
        lines[-1].append(_rate(one, texts))
    return table(["model", "dimensions", "bytes of weights", *_SCORE_COLUMNS, "texts a second"], lines)


_SCORE_COLUMNS = ["Spearman x 100", "difference", "95 % interval", "p"]


def _score_cells(name: str, found: Mapping[str, Comparison]) -> list[str]:
    if name not in found:
        return [f"{100 * next(iter(found.values())).average.base:.2f}", "", "", ""]
    one = found[name].tasks[TASK]
    lower, upper = (100 * bound for bound in one.ci95)
    return [f"{100 * one.model:.2f}", f"{100 * one.gain:+.2f}", f"[{lower:+.2f}, {upper:+.2f}]", f"{one.p_value:.4f}"]


def _texts(pairs: ScoredPairs) -> list[str]:
    return list(dict.fromkeys([*pairs.sentence1, *pairs.sentence2]))


def _rows(sentences: list[str], pairs: ScoredPairs) -> list[int]:
    row_of = {text: row for row, text in enumerate(_texts(pairs))}
    return [row_of[text] for text in sentences]


def _search_seconds(vector_precision: VectorPrecision, *, ranges: Ranges) -> float | None:
    try:
        from usearch.index import MetricKind, search
    except ImportError:
        return None
    rows = np.random.default_rng(0).standard_normal((_NUM_SEARCHED, ranges.dim)).astype(np.float32)
    rows *= np.abs(ranges.bounds).mean() / 3  # so that hardly any value lies outside the ranges
    needed = ranges if vector_precision in IN_STEPS else None
    given = quantize_vectors(rows, vector_precision=vector_precision, ranges=needed)
    metric = MetricKind.Hamming if vector_precision is VectorPrecision.UBINARY else MetricKind.Cos
    seconds = []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        search(given, given[:_NUM_QUERIES], 10, metric, exact=True, threads=1)
        seconds.append((time.perf_counter() - started) / _NUM_QUERIES)
    return min(seconds)


def _rate(model: EmbeddingModel, texts: list[str]) -> str:
    model.encode(texts[:64])
    started = time.perf_counter()
    model.encode(texts, side=Side.QUERY)
    return f"{len(texts) / (time.perf_counter() - started):,.0f}"


if __name__ == "__main__":
    main()
