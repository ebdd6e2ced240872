"""An evaluation <-> its files: `results.json`, and beside it the similarities that a comparison needs.

`results.similarities.safetensors` holds for each task the cosine and the gold score of every pair, so that two models
can be compared later, or elsewhere, without embedding anything again.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from embedsmith.records.results import BenchmarkResult, EvaluationResult, MtebScore, PairSimilarities
from embedsmith.support import files
from embedsmith.support.errors import DataError

_SUFFIX = ".similarities.safetensors"


def save_evaluation(path: Path, result: EvaluationResult, *, benchmark: BenchmarkResult | None = None) -> None:
    """Write `path` (JSON) and, where the result carries them, its similarities beside it; each atomically.

    `benchmark` is what else was found in the same run. The first file says which other one belongs to it.
    """
    values = result.to_json() | ({"mteb": benchmark.to_json()} if benchmark else {})
    if result.similarities:
        tensors = {}
        for task, pairs in result.similarities.items():
            tensors[f"{task}/cosine"], tensors[f"{task}/gold"] = pairs.cosine, pairs.gold
        fingerprints = {task: pairs.fingerprint for task, pairs in result.similarities.items()}
        data = safetensors.numpy.save(tensors, metadata=fingerprints)
        files.write_bytes(similarities_path(path), data)
        values["similarities"] = hashlib.sha256(data).hexdigest()
    files.write_json(path, values)


def similarities_path(path: Path) -> Path:
    """Where the similarities of `results.json` lie."""
    return path.with_name(path.name.removesuffix(".json") + _SUFFIX)


def read_results(path: Path) -> tuple[EvaluationResult, dict[str, MtebScore]]:
    """Scores of similarity tasks, and those of other tasks of mteb's, without what they were made of.

    Raises:
        DataError: the file is missing or is no such file.
    """
    advice = f"Write it with: embedsmith evaluate MODEL --out {path}"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        others = values.get("mteb", {}).get("scores", {})
        return EvaluationResult.from_json(values), {name: MtebScore(**one) for name, one in others.items()}
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.\n{advice}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not hold the results of one model ({type(error).__name__}: {error}).\n{advice}"
        ) from error


def load_evaluation(path: Path) -> EvaluationResult:
    """Inverse of `save_evaluation`.

    Raises:
        DataError: a file is missing or is no such file.
    """
    result, _ = read_results(path)
    known = json.loads(path.read_text(encoding="utf-8")).get("similarities")
    if not result.tasks:
        raise DataError(f"{path} holds no similarity task, and only those can be compared pair by pair.")
    kept = similarities_path(path)
    try:
        with safetensors.safe_open(kept, framework="numpy") as file:
            fingerprints = file.metadata()
            similarities = {
                task: PairSimilarities(
                    file.get_tensor(f"{task}/cosine"), file.get_tensor(f"{task}/gold"), fingerprints[task]
                )
                for task in result.tasks
            }
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise DataError(
            f"{kept}, which must lie beside {path.name}, is missing or damaged: {error}\n"
            f"Write both with: embedsmith evaluate MODEL --out {path}"
        ) from error
    if known is not None and hashlib.sha256(kept.read_bytes()).hexdigest() != known:
        raise DataError(
            f"{kept} does not belong to {path.name}: another evaluation wrote it.\n"
            f"Write both with: embedsmith evaluate MODEL --out {path}"
        )
    return replace(result, similarities=similarities)
