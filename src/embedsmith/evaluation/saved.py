"""An evaluation <-> its files: `results.json`, and beside it the similarities that a comparison needs.

`results.similarities.safetensors` holds for each task the cosine and the gold score of every pair, nDCG@10 of every
query, or the rank and label of every pair of a duplicate set, so that two models can be compared later, or elsewhere,
without embedding anything again.
"""

import hashlib
from dataclasses import replace
from pathlib import Path

import safetensors.numpy
from safetensors import SafetensorError

from embedsmith.records.results import (
    BenchmarkResult,
    DuplicateRanks,
    EvaluationResult,
    MtebScore,
    PairSimilarities,
    QueryScores,
)
from embedsmith.support import files
from embedsmith.support.errors import DataError
from embedsmith.support.json_text import parse_json

_SUFFIX = ".similarities.safetensors"


def save_evaluation(path: Path, result: EvaluationResult, *, benchmark: BenchmarkResult | None = None) -> None:
    """Write `path` (JSON) and, where the result carries them, its similarities beside it; each atomically.

    `benchmark` is what else was found in the same run. The first file says which other one belongs to it.
    """
    values = result.to_json() | ({"mteb": benchmark.to_json()} if benchmark else {})
    if result.parts:
        tensors = {f"{task}/ndcg_at_10": one.ndcg_at_10 for task, one in result.queries.items()}
        for task, pairs in result.similarities.items():
            tensors[f"{task}/cosine"], tensors[f"{task}/gold"] = pairs.cosine, pairs.gold
        for task, ranked in result.duplicates.items():
            tensors[f"{task}/rank"], tensors[f"{task}/is_duplicate"] = ranked.ranks, ranked.is_duplicate
        fingerprints = {task: one.fingerprint for task, one in result.parts.items()}
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
        values = parse_json(files.read_text(path))
        others = values.get("mteb", {}).get("scores", {})
        if not isinstance(values["model"], str):
            raise TypeError("model is no name")
        return EvaluationResult.from_json(values), {name: MtebScore.from_json(one) for name, one in others.items()}
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.\n{advice}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.\n{advice}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} does not hold the results of one model ({type(error).__name__}: {error}).\n{advice}"
        ) from error


def load_evaluation(path: Path) -> EvaluationResult:
    """Inverse of `save_evaluation`.

    Raises:
        DataError: a file is missing or is no such file.
    """
    result, others = read_results(path)
    retrieval_sets = [name for name, one in others.items() if one.num_queries is not None]
    duplicate_sets = [name for name, one in others.items() if one.num_pairs is not None]
    known = parse_json(files.read_text(path)).get("similarities")
    if not (result.tasks or retrieval_sets or duplicate_sets):
        raise DataError(
            f"{path} holds no similarity task and no retrieval or duplicate set from a folder, and only those can be "
            f"compared.\nEvaluate with --data FOLDER, or on similarity tasks: embedsmith evaluate MODEL --out {path}"
        )
    kept = similarities_path(path)
    try:
        files.check_can_end(kept)
        with safetensors.safe_open(kept, framework="numpy") as file:
            fingerprints = file.metadata()
            similarities = {
                task: PairSimilarities(
                    file.get_tensor(f"{task}/cosine"), file.get_tensor(f"{task}/gold"), fingerprints[task]
                )
                for task in result.tasks
            }
            queries = {
                task: QueryScores(file.get_tensor(f"{task}/ndcg_at_10"), fingerprints[task]) for task in retrieval_sets
            }
            duplicates = {
                task: DuplicateRanks(
                    file.get_tensor(f"{task}/rank"), file.get_tensor(f"{task}/is_duplicate"), fingerprints[task]
                )
                for task in duplicate_sets
            }
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise DataError(
            f"{kept}, which must lie beside {path.name}, is missing or damaged: {error}\n"
            f"Write both with: embedsmith evaluate MODEL --out {path}"
        ) from error
    if known is not None and hashlib.sha256(kept.read_bytes()).hexdigest() != known:
        raise DataError(
            f"{kept} does not belong to {path.name}: another evaluation wrote it.\n"
            f"Write both with: embedsmith evaluate MODEL --out {path}"
        )
    return replace(result, similarities=similarities, queries=queries, duplicates=duplicates)
