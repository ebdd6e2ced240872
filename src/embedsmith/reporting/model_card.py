"""A run -> its model card: `README.md` in the form model hubs read (YAML front matter, then Markdown)."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import yaml

from embedsmith.reporting.tables import results_markdown
from embedsmith.results import EvaluationResult


def model_card(
    *,
    name: str,
    base_model: str,
    results: Sequence[tuple[str, EvaluationResult]],
    config_yaml: str,
    data: str,
    num_steps: int,
    matryoshka_dims: Sequence[int] = (),
    is_adapter: bool = True,
) -> str:
    """The card of a run.

    Args:
        name: the run folder's name.
        base_model: what was fine-tuned, as the user named it.
        results: (title, result) of each model shown; the last one is this run's.
        config_yaml: the resolved recipe.
        data: how much of what it was trained on, such as "1000 triplets".
        num_steps: optimizer steps.
        matryoshka_dims: widths that were trained besides the full one, if any.
        is_adapter: LoRA, or else all weights.
    """
    front = yaml.safe_dump(_front_matter(name, base_model, results, is_adapter), sort_keys=False, allow_unicode=True)
    what = "a LoRA adapter for" if is_adapter else "all weights of"
    parts = [
        f"---\n{front}---\n",
        f"# {name}\n",
        f"A text-embedding model: {what} `{base_model}`, fine-tuned with embedsmith on {data} in {num_steps} steps.\n",
        "## Use\n",
        "```python\n"
        "from embedsmith import Embedder\n\n"
        f'embedder = Embedder.load("{name}")  # this folder\n'
        'vectors = embedder.encode(["A cat sleeps.", "An animal is asleep."])  # (2, D) float32, unit length\n'
        "similarity = vectors[0] @ vectors[1]\n"
        "```\n",
    ]
    if matryoshka_dims:
        parts += [
            f"Trained for {', '.join(map(str, matryoshka_dims))} dimensions: `embedder.encode(texts, "
            f"dim={matryoshka_dims[0]})` gives shorter vectors.\n"
        ]
    if results:
        parts += ["## Scores\n", "Spearman correlation of cosine similarity x 100, with 95 % bootstrap intervals.\n"]
        parts += [results_markdown(results)]
        parts += ["The development set chose the step that was kept, so its score is slightly optimistic.\n"]
    parts += ["## Recipe\n", f"```yaml\n{config_yaml}```\n"]
    return "\n".join(parts)


def _front_matter(
    name: str, base_model: str, results: Sequence[tuple[str, EvaluationResult]], is_adapter: bool
) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": "peft" if is_adapter else "transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": ["embedsmith", "feature-extraction", "sentence-similarity", *(["lora"] if is_adapter else [])],
    }
    # A hub id may stand here; a local path means nothing elsewhere.
    front["base_model"] = PurePath(base_model).name if PurePath(base_model).is_absolute() else base_model
    if results:
        scores = [
            {
                "task": {"type": "STS"},
                "dataset": {"type": "sts", "name": task},
                "metrics": [{"type": "cosine_spearman", "value": round(100 * result.cosine_spearman, 2)}],
            }
            for task, result in results[-1][1].tasks.items()
        ]
        front["model-index"] = [{"name": name, "results": scores}]
    return front
