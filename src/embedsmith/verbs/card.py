"""A run's folder + scores -> its model card, `README.md` in that folder."""

import logging
from pathlib import Path

from embedsmith.evaluation.mteb_tasks import find_task_data
from embedsmith.evaluation.saved import read_results
from embedsmith.model.loading.backbone import ADAPTER_FILE, weights_folder
from embedsmith.model.loading.builtin import BUILTIN
from embedsmith.model.loading.fingerprint import describe_embedding, fingerprint_model, fingerprint_own_files
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.records.results import EvaluationResult, MtebScore
from embedsmith.reporting.model_card import CardContent, model_card
from embedsmith.reporting.published import published_beside
from embedsmith.settings.choices import Quantization
from embedsmith.support import files
from embedsmith.support.errors import DataError, MissingExtraError, ModelError
from embedsmith.verbs.evaluate import root_of
from embedsmith.verbs.origin import read_origin

log = logging.getLogger(__name__)

CARD_FILE = "README.md"
_BUILTIN_REMARK = (
    "It was trained on embedsmith's built-in `{name}`, whose weights are the original's in 4 bits. On the original's "
    "own weights, as loaded here, vectors differ."
)


def write_card(folder: Path, *, dev: EvaluationResult | None = None, results: Path | None = None) -> Path:
    """Write the card of a finished run, or of an average; returns its path.

    Args:
        folder: the run's, or the average's.
        dev: score on the development set, to be shown.
        results: `results.json` of `embedsmith evaluate RUN --out`, to be shown instead.

    Raises:
        RunError: the folder is not that of a finished run or an average.
        DataError: `results` is no such file, or holds the scores of another model or of other settings.
    """
    origin = read_origin(folder)
    files.check_output(folder / CARD_FILE, option="the card")
    weights = weights_folder(str(folder))
    settings = EmbeddingSettings.read(weights)
    found, mteb = read_results(results) if results else (dev, {})
    if results and found:
        _check_is_of(folder, found, settings=settings, results=results)
    root = root_of(settings)
    builtin = BUILTIN.get(root)
    hub_base = builtin.original if builtin else root.partition(":")[0]  # a GGUF file is named behind its repository
    is_on_hub = not Path(root).is_absolute()  # a folder stands in a run's settings by its full path
    assert settings.max_length
    attends = origin.attends_as_base
    content = CardContent(
        name=folder.resolve().name,
        base_model=hub_base if settings.base_model == root and is_on_hub else Path(settings.base_model).name,
        hub_base=hub_base if is_on_hub else None,
        base_remark=_BUILTIN_REMARK.format(name=root) if settings.base_model in BUILTIN else "",
        license=builtin.license if builtin else None,
        family=origin.family,
        is_plain=origin.is_plain,
        is_adapter=(weights / ADAPTER_FILE).exists(),
        pooling=settings.pooling,
        prompt=settings.prompt,
        instruction=settings.instruction,
        prompt_tokens=settings.prompt_tokens,
        end_token=settings.end_token is not False,
        max_length=settings.max_length,
        has_query_prompt=settings.query_prompt is not None,
        is_quantized=settings.quantization is not Quantization.NONE,
        attends_as_base=settings.bidirectional_layers == 0 if attends is None else attends,
        opens_all_layers=settings.bidirectional_layers == "all",
        matryoshka_dims=settings.matryoshka_dims,
        origin=origin.sentence,
        details=origin.details,
        datasets=origin.datasets,
        config_yaml=origin.config_yaml,
        results=[("tuned", found)] if found and found.tasks else [],
        chose_step=results is None and found is not None and origin.is_best,
        mteb=mteb,
        mteb_data=_mteb_data(mteb),
        published=published_beside([("this model", found)], base_model=hub_base, family=None)
        if found and found.tasks
        else None,
    )
    files.write_text(folder / CARD_FILE, model_card(content))
    return folder / CARD_FILE


def _check_is_of(folder: Path, found: EvaluationResult, *, settings: EmbeddingSettings, results: Path) -> None:
    """Refuse the results of another model; older files, which say no more than its name, go by that."""
    advice = f"Score this run with: embedsmith evaluate {folder} --out {results}"
    if found.embedding is None:
        if Path(found.model).resolve() != folder.resolve():
            raise DataError(f"{results} holds the scores of '{found.model}', not of '{folder}'.\n{advice}")
        log.warning("%s tells no more of its model than the name '%s'.", results, found.model)
        return
    try:
        weights = fingerprint_model(str(folder))
    except ModelError:  # its base is not here: the run's own weights then decide
        weights = (fingerprint_own_files(str(folder)),)
    own = describe_embedding(settings, weights=weights)
    kept = dict(found.embedding)
    if any(one != other for one, other in zip(weights, kept.pop("weights", ()), strict=False)):
        raise DataError(
            f"{results} holds the scores of another model, which was called '{found.model}', not of '{folder}'.\n"
            f"{advice}"
        )
    changed = [
        f"{name} was {value!r}, of the run it is {own.get(name)!r}"
        for name, value in kept.items()
        # A benchmark has an instruction of its own for each task.
        if value != own.get(name) and not (name == "instruction" and value is None)
    ]
    if changed:
        raise DataError(f"{results} holds scores under other settings: {'; '.join(changed)}.\n{advice}")


def _mteb_data(scores: dict[str, MtebScore]) -> dict[str, tuple[str, str, str]]:
    try:
        return find_task_data(scores) if scores else {}
    except MissingExtraError:
        return {}
