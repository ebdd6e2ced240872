"""A folder of ours -> how what lies in it was made: by a run, or as an average of runs.

An average's folder has `average.json` where a run's has its recipe and its outcome; `read_origin` reads either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedsmith.data.hub import is_hub_id, split_hub_id
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config, parse_config
from embedsmith.support import files
from embedsmith.support.errors import RunError
from embedsmith.support.json_text import parse_json
from embedsmith.verbs.inputs import flat_settings
from embedsmith.verbs.run_folder import CONFIG_FILE, name_steps, read_outcome

AVERAGE_FILE = "average.json"
_PART = {"model", "share", "recipe", "trained_on", "num_steps"}


@dataclass(frozen=True)
class Origin:
    """How a model was made.

    Attributes:
        family: its architecture, as transformers calls it.
        is_plain, attends_as_base: as of an `Embedder`; None: nobody says.
        sentence: goes on behind "a LoRA adapter for X, ".
        details: more of it, in Markdown.
        datasets: hub ids among the training data.
        config_yaml: the recipe; of an average that of the first run; empty: it is not known.
        is_best: whether the development set chose the step.
    """

    family: str
    is_plain: bool
    attends_as_base: bool | None
    sentence: str
    details: Sequence[str]
    datasets: Sequence[str]
    config_yaml: str
    is_best: bool


def read_origin(folder: Path) -> Origin:
    """What the folder of a finished run, or of an average, tells; raises RunError when it is neither, or damaged."""
    if (folder / AVERAGE_FILE).exists():
        return _describe_average(read_average(folder / AVERAGE_FILE))
    outcome = read_outcome(folder)
    config = load_config(folder / CONFIG_FILE)
    details = []
    if averaged := outcome["averaged"]:
        details = [f"What is kept is the average of the weights after steps {name_steps(averaged)}.\n"]
    return Origin(
        family=outcome["family"],
        is_plain=outcome["is_plain"],
        attends_as_base=outcome["attends_as_base"],
        sentence=f"fine-tuned with embedsmith on {outcome['trained_on']} in {outcome['cost']['num_steps']} steps",
        details=details,
        datasets=_hub_datasets([config]),
        config_yaml=config.to_yaml(),
        is_best=config.evaluation.keep == "best",
    )


def _hub_datasets(configs: Sequence[RunConfig]) -> list[str]:
    names = (name for config in configs for name in config.data.source_names)
    return list(dict.fromkeys(split_hub_id(name)[0] for name in names if is_hub_id(name)))


def read_average(path: Path) -> dict[str, Any]:
    """The values of an `average.json`; raises RunError when it is damaged."""
    try:
        values: dict[str, Any] = parse_json(files.read_text(path))
        lacking = {"models", "rank", "dtype", "family", "is_plain", "attends_as_base"} - values.keys()
        lacking |= {name for part in values["models"] for name in _PART - part.keys()}
        if lacking:
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error!r}.\nMake the average anew: embedsmith average.") from error
    return values


def _describe_average(values: Mapping[str, Any]) -> Origin:
    models = values["models"]
    configs = [parse_config(part["recipe"]) for part in models if part["recipe"]]
    return Origin(
        family=values["family"],
        is_plain=values["is_plain"],
        attends_as_base=values["attends_as_base"],
        sentence=_sentence(values),
        details=[_models_table(models), *_differences(configs)],
        datasets=_hub_datasets(configs),
        config_yaml=configs[0].to_yaml() if configs else "",
        is_best=False,
    )


def _sentence(values: Mapping[str, Any]) -> str:
    number = len(values["models"])
    what = f"made with embedsmith as the average of {number}" if number > 1 else "fine-tuned with embedsmith"
    rank = f", reduced to rank {values['rank']}" if values["rank"] else ""
    return f"{what}{rank}" + ("" if values["dtype"] == "fp32" else f", stored as {values['dtype']}")


def _models_table(models: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"| {one['model']}{f' in {name}' if (name := one.get('in')) else ''} | {one['share']:.4g} "
        f"| {one['trained_on'] or ''} | {one['num_steps'] or ''} |"
        for one in models
    ]
    return "\n".join(["| made from | share | trained on | steps |", "| --- | ---: | --- | ---: |", *lines]) + "\n"


def _differences(configs: Sequence[RunConfig]) -> list[str]:
    """What of the recipes is not the same in all, but for where they wrote."""
    found = [flat_settings(config) for config in configs]
    keys = [key for key in (found[0] if found else ()) if key != "output_dir" and any(
        one[key] != found[0][key] for one in found
    )]  # fmt: skip
    if not keys:
        return []
    values = "; ".join(f"`{key}` {', '.join(str(one[key]) for one in found)}" for key in keys)
    return [f"Their recipes are the same but for {values}.\n"]
