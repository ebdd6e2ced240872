"""Series of seconds -> rows of results: medians, spreads, ratios taken within rounds; and the file they are kept in."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.pool import Results, Series, Work
from benchmarks.variants import Variant
from embedsmith.support import files

TRAINING_FACTOR = 4
"""Operations per parameter and token of a training step on a frozen base: 2 forward, 2 for the gradient of inputs."""
ENCODING_FACTOR = 2


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant on one work.

    Attributes:
        part, work, variant: where it belongs.
        label: the variant, as shown.
        items: triplets of the step, or texts encoded.
        x: place on the plot's axis, or None.
        tokens: median real tokens of the work, as embedsmith counts them, equal texts every time.
        computed_tokens: median real tokens the variant says it computed, or None.
        repetitions: counted ones.
        seconds: median.
        spread: interquartile range of the seconds.
        ratio: median over rounds of its seconds over the reference's, or those that `Work.against` names.
        ratio_low, ratio_high: quartiles of the same.
        fraction: of the peak, in the machine's fast precision, that the necessary operations make, by any product.
        fraction_of_mm: the same of `torch.mm`'s peak, whose weights are not laid out beforehand.
        peak_bytes: most memory of its process, once loaded.
        cosine, mean_cosine: smallest and mean cosine of an embedding to the float32 one, or None.
        failure: why there are no figures, or None.
    """

    part: str
    work: str
    variant: str
    label: str
    items: int
    x: float | None
    tokens: float
    computed_tokens: float | None = None
    repetitions: int = 0
    seconds: float | None = None
    spread: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    fraction: float | None = None
    fraction_of_mm: float | None = None
    peak_bytes: int | None = None
    cosine: float | None = None
    mean_cosine: float | None = None
    failure: str | None = None


def summarize(
    results: Results,
    *,
    part: str,
    works: Sequence[Work],
    variants: Sequence[Variant],
    reference: str,
    operations_per_token: float,
    cosines: dict[str, tuple[float, float]],
) -> list[Row]:
    """Rows of one group, without the reference's where `variants` leaves it out.

    `fraction` is left as operations per second, until the machine's peak is known (`with_fractions`).
    """
    rows = []
    for work in works:
        for variant in variants:
            series = results.get((work.name, variant.name))
            if series is None:
                continue
            compared = (work.against, variant.name) if work.against else (work.name, reference)
            base = results.get(compared, Series())
            cosine, mean_cosine = cosines.get(variant.name, (None, None))
            row = Row(
                part=part,
                work=work.name,
                variant=variant.name,
                label=variant.label,
                items=work.items,
                x=work.x,
                tokens=statistics.median(work.tokens[1:]),
                failure=series.failure,
                peak_bytes=series.peak_bytes,
                cosine=cosine,
                mean_cosine=mean_cosine,
                **_figures(series, base, work=work, operations_per_token=operations_per_token),
            )
            rows.append(row)
    return rows


def _figures(series: Series, base: Series, *, work: Work, operations_per_token: float) -> dict[str, Any]:
    if not series.seconds:
        return {}
    seconds = np.array(series.seconds)
    quartiles = np.percentile(seconds, [25, 75])
    rates = operations_per_token * np.array(work.tokens[1 : 1 + len(seconds)]) / seconds
    tokens = [reply["tokens"] for reply in series.replies[1:] if "tokens" in reply]
    figures = {
        "repetitions": len(seconds),
        "seconds": float(np.median(seconds)),
        "spread": float(quartiles[1] - quartiles[0]),
        "fraction": float(np.median(rates)),
        "computed_tokens": statistics.median(tokens) if tokens else None,
    }
    num_paired = min(len(seconds), len(base.seconds))
    if num_paired:
        ratios = seconds[:num_paired] / np.array(base.seconds[:num_paired])
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        figures |= {"ratio": float(middle), "ratio_low": float(low), "ratio_high": float(high)}
    return figures


def with_fractions(rows: Sequence[Row], *, peak_flops: float, mm_flops: float) -> list[Row]:
    """Rows whose fractions are of the peaks given, in operations per second."""
    return [
        replace(row, fraction=row.fraction / peak_flops, fraction_of_mm=row.fraction / mm_flops)
        if row.fraction
        else row
        for row in rows
    ]


def cosines_to(exact: str, vectors: dict[str, Path]) -> dict[str, tuple[float, float]]:
    """For each variant's file of embeddings, the smallest and the mean cosine of a row to the same row of `exact`."""
    if exact not in vectors:
        return {}
    truth = _unit_rows(vectors[exact])
    cosines = {name: (_unit_rows(path) * truth).sum(axis=1) for name, path in vectors.items()}
    return {name: (float(values.min()), float(values.mean())) for name, values in cosines.items()}


def _unit_rows(path: Path) -> np.ndarray:
    rows = np.load(path, allow_pickle=False).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def read_results(path: Path) -> dict[str, Any]:
    """The file of results, or an empty one."""
    if not path.exists():
        return {"machine": None, "parts": {}}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Keep the results, atomically."""
    files.write_json(path, results)


def rows_of(results: dict[str, Any], part: str) -> list[Row]:
    """The rows of one part, as kept in the file."""
    return [Row(**row) for row in results["parts"].get(part, {}).get("rows", [])]
