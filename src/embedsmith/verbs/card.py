"""A run's folder + scores -> its model card, `README.md` in that folder."""

from pathlib import Path

from embedsmith.data.triplets import is_hub_id
from embedsmith.evaluation.mteb_tasks import find_task_data
from embedsmith.evaluation.saved import read_results
from embedsmith.model.loading.backbone import ADAPTER_FILE, weights_folder
from embedsmith.model.loading.builtin import BUILTIN_SOURCES
from embedsmith.model.loading.settings import EmbeddingSettings
from embedsmith.records.results import EvaluationResult, MtebScore
from embedsmith.reporting.model_card import CardContent, model_card
from embedsmith.reporting.published import beside
from embedsmith.settings.config import Quantization
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.errors import MissingExtraError
from embedsmith.verbs.run_folder import CONFIG_FILE, read_outcome

CARD_FILE = "README.md"
_BUILTIN_REMARK = (
    "It was trained on embedsmith's built-in `{name}`, whose weights are the original's in 4 bits. On the original's "
    "own weights, as loaded here, vectors differ."
)


def write_card(folder: Path, *, dev: EvaluationResult | None = None, results: Path | None = None) -> Path:
    """Write the card of a finished run; returns its path.

    Args:
        folder: the run's.
        dev: score on the development set, to be shown.
        results: `results.json` of `embedsmith evaluate RUN --out`, to be shown instead.

    Raises:
        RunError: the folder is not that of a finished run.
        DataError: `results` is no such file.
    """
    outcome = read_outcome(folder)
    config = load_config(folder / CONFIG_FILE)
    weights = weights_folder(str(folder))
    settings = EmbeddingSettings.read(weights)
    found, mteb = read_results(results) if results else (dev, {})
    name = config.model.model
    base, licence = BUILTIN_SOURCES.get(name, (name, None))
    assert settings.max_length
    content = CardContent(
        name=folder.resolve().name,
        base_model=base,
        base_remark=_BUILTIN_REMARK.format(name=name) if name in BUILTIN_SOURCES else "",
        license=licence,
        family=outcome["family"],
        is_adapter=(weights / ADAPTER_FILE).exists(),
        pooling=settings.pooling,
        prompt=settings.prompt,
        instruction=settings.instruction,
        end_token=settings.end_token,
        max_length=settings.max_length,
        has_query_prompt=settings.query_prompt is not None,
        is_quantized=settings.quantization is not Quantization.NONE,
        is_causal=settings.bidirectional_layers == 0,
        matryoshka_dims=settings.matryoshka_dims,
        data=outcome["trained_on"],
        num_steps=outcome["cost"]["num_steps"],
        datasets=[name.partition(":")[0] for name in config.data.source_names if is_hub_id(name)],
        config_yaml=config.to_yaml(),
        results=[("tuned", found)] if found and found.tasks else [],
        are_dev=results is None and found is not None,
        mteb=mteb,
        mteb_data=_mteb_data(mteb),
        notes=beside(found, base_model=base) if found and found.tasks else (),
    )
    files.write_text(folder / CARD_FILE, model_card(content))
    return folder / CARD_FILE


def _mteb_data(scores: dict[str, MtebScore]) -> dict[str, tuple[str, str, str]]:
    try:
        return find_task_data(scores) if scores else {}
    except MissingExtraError:
        return {}
