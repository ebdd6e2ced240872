"""A run -> its model card: `README.md` in the form model hubs read (YAML front matter, then Markdown)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from embedsmith.records.results import EvaluationResult, MtebScore
from embedsmith.reporting.published import Beside
from embedsmith.reporting.tables import beside_markdown, results_markdown
from embedsmith.settings.choices import Pooling
from embedsmith.settings.prompts import Prompt, read_prompt
from embedsmith.support.errors import ConfigError


@dataclass(frozen=True)
class CardContent:
    """What a card says.

    Attributes:
        name: the run folder's.
        base_model: what was fine-tuned: a hub id, or the name of a folder.
        hub_base: hub id of what it builds on in the end, which alone a hub takes as `base_model`; None: none is known.
        base_remark: what to know of the base where it is loaded elsewhere, if anything.
        license: of the base, where it is known.
        family: its architecture, as transformers calls it.
        is_adapter: LoRA, or else all weights.
        pooling, prompt, instruction, prompt_tokens, end_token, max_length: how a text is embedded.
        has_query_prompt: whether queries have a prompt of their own.
        attends_as_base: whether attention goes the ways that the base's own configuration says.
        opens_all_layers: whether it goes both ways in all layers.
        is_plain: see `Embedder`.
        is_quantized: whether the base was in 8 or 4 bits.
        matryoshka_dims: widths that were trained besides the full one, if any.
        origin: how it was made, such as "fine-tuned with embedsmith on 1,000 triplets in 8 steps".
        details: more of that, paragraphs in Markdown.
        datasets: hub ids among the training data.
        config_yaml: the resolved recipe; empty: it is not known.
        results: (title, result) of each model shown; the last one is this run's.
        chose_step: whether they are those of the development set, which chose the step that was kept.
        mteb: scores of other tasks, by name.
        mteb_data: where mteb has a task's data: name -> path, revision, split.
        published: results of the base as published, to stand under the scores.
    """

    name: str
    base_model: str
    hub_base: str | None
    base_remark: str
    license: str | None
    family: str
    is_adapter: bool
    pooling: Pooling
    prompt: str | None
    instruction: str | None
    prompt_tokens: str
    end_token: bool
    max_length: int
    has_query_prompt: bool
    attends_as_base: bool
    opens_all_layers: bool
    is_plain: bool
    is_quantized: bool
    matryoshka_dims: Sequence[int]
    origin: str
    details: Sequence[str]
    datasets: Sequence[str]
    config_yaml: str
    results: Sequence[tuple[str, EvaluationResult]] = ()
    chose_step: bool = False
    mteb: Mapping[str, MtebScore] = field(default_factory=dict)
    mteb_data: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)
    published: Beside | None = None


def model_card(card: CardContent) -> str:
    """The card's text."""
    front = yaml.safe_dump(_front_matter(card), sort_keys=False, allow_unicode=True)
    what = "a LoRA adapter for" if card.is_adapter else "all weights of"
    parts = [
        f"---\n{front}---\n",
        f"# {card.name}\n",
        f"A text-embedding model: {what} `{card.base_model}`, {card.origin}. Not made to generate text.\n",
        *card.details,
        "## Use\n",
        *_usage(card),
    ]
    if card.results or card.mteb:
        parts += ["## Scores\n"]
    if card.results:
        parts += ["Spearman correlation of cosine similarity x 100, with 95 % bootstrap intervals.\n"]
        parts += [results_markdown(card.results)]
    if card.chose_step:
        parts += ["The development set chose the step that was kept, so its score is slightly optimistic.\n"]
    shown = card.results[-1][1].tasks if card.results else {}
    others = {name: one for name, one in card.mteb.items() if name not in shown}
    if others:
        lines = [f"| {name} | {one.kind} | {one.metric} | {100 * one.score:.1f} |" for name, one in others.items()]
        parts += ["\n".join(["| task | type | metric | score x 100 |", "| --- | --- | --- | ---: |", *lines]) + "\n"]
    if card.published:
        parts += [f"{beside_markdown(card.published)}\n"]
    if card.config_yaml:
        parts += ["## Recipe\n", f"```yaml\n{card.config_yaml}```\n"]
    return "\n".join(parts)


def _front_matter(card: CardContent) -> dict[str, Any]:
    tags = ["embedsmith", "feature-extraction", "sentence-similarity", *(["lora"] if card.is_adapter else [])]
    front: dict[str, Any] = {
        "library_name": "peft" if card.is_adapter else "transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": [*tags, *(["mteb"] if card.mteb else [])],
    }
    if card.hub_base:
        front |= {"base_model": card.hub_base, "base_model_relation": "adapter" if card.is_adapter else "finetune"}
    front |= {"license": card.license} if card.license else {}
    front |= {"datasets": list(card.datasets)} if card.datasets else {}
    scores = _scores(card)
    return front | ({"model-index": [{"name": card.name, "results": scores}]} if scores else {})


def _scores(card: CardContent) -> list[dict[str, Any]]:
    found = {}
    for name, task in card.results[-1][1].tasks.items() if card.results else ():
        found[name] = MtebScore("STS", "cosine_spearman", task.cosine_spearman)
    records = []
    for name, one in {**found, **card.mteb}.items():
        dataset: dict[str, str] = {"type": "sts" if one.kind == "STS" else "other", "name": name}
        if name in card.mteb_data:
            path, revision, split = card.mteb_data[name]
            dataset = {"type": path, "name": f"MTEB {name}", "config": "default", "split": split, "revision": revision}
        value = round(100 * one.score, 2)
        metrics = [{"type": metric, "value": value} for metric in (one.metric, "main_score")]
        records.append({"task": {"type": one.kind}, "dataset": dataset, "metrics": metrics})
    return records


def _usage(card: CardContent) -> list[str]:
    parts = [
        "```python\n"
        "from embedsmith import Embedder\n\n"
        f'embedder = Embedder.load("{card.name}")  # this folder\n'
        'vectors = embedder.encode(["A cat sleeps.", "An animal is asleep."])  # (2, D) float32, unit length\n'
        "similarity = vectors[0] @ vectors[1]\n"
        + ('queries = embedder.encode(["sleeping animals"], side="query")\n' if card.has_query_prompt else "")
        + "```\n"
    ]
    if card.matryoshka_dims:
        parts += [
            f"Trained for {', '.join(map(str, card.matryoshka_dims))} dimensions: `embedder.encode(texts, "
            f"dim={card.matryoshka_dims[0]})` gives shorter vectors.\n"
        ]
    if (reason := _why_only_here(card)) is not None:
        return [*parts, f"With embedsmith alone: {reason}.\n"]
    return [
        *parts,
        f"With sentence-transformers{'' if card.attends_as_base else ' on transformers 5.2 or newer'}, after\n",
        f"```\nembedsmith export {card.name} {card.name}-st --to sentence-transformers\n```\n",
        "```python\n"
        "from sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("{card.name}-st")\n'
        'vectors = model.encode(["A cat sleeps.", "An animal is asleep."])\n'
        + ('queries = model.encode(["sleeping animals"], prompt_name="query")\n' if card.has_query_prompt else "")
        + "```\n",
        *_transformers_usage(card),
    ]


def _why_only_here(card: CardContent) -> str | None:
    """Why other tools cannot compute these embeddings, if so."""
    if not card.attends_as_base and not card.opens_all_layers:
        return "other tools open all layers to attention both ways, or none"
    if card.is_quantized:
        return "its base is in few bits"
    if card.pooling is Pooling.CONCAT:
        return "other tools do not pool the end token and the mean side by side"
    prompt = _prompt(card)
    if prompt is None:
        return "its prompt takes an instruction with every text"
    # What stands behind a text can be the exported tokenizer's, where it is the same for queries.
    is_put = card.prompt_tokens == "apart" and not card.has_query_prompt
    return "its prompt goes on behind the text" if prompt.is_echo or (prompt.parts[1] and not is_put) else None


def _prompt(card: CardContent) -> Prompt | None:
    try:
        return read_prompt(card.prompt, instruction=card.instruction)
    except ConfigError:
        return None  # an instruction that comes with each text


def _transformers_usage(card: CardContent) -> list[str]:
    """With transformers and peft alone: what happens inside, step by step."""
    if not card.is_plain:
        return []  # dense layers, say: more than a few lines
    if card.family == "granite" or not card.attends_as_base:
        # It may be MiniCPM under another name; whose own folder transformers does not read. Or its base is causal.
        return ["With transformers alone: `embedsmith export --to merged` writes a folder that it reads.\n"]
    # A hub id, or whatever the user has to put in the place of a folder of ours.
    base = card.base_model
    if card.is_adapter:
        load = f'model = PeftModel.from_pretrained(AutoModel.from_pretrained("{base}"), "{card.name}/adapter")\n'
    else:
        load = f'model = AutoModel.from_pretrained("{card.name}/model")\n'
    return [
        f"With transformers{' and peft' if card.is_adapter else ''} alone:\n",
        "```python\n"
        "import torch\n"
        + ("from peft import PeftModel\n" if card.is_adapter else "")
        + "from transformers import AutoModel, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{base if card.is_adapter else f"{card.name}/model"}")\n'
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token\n"
        f"{load}"
        'texts = ["A cat sleeps.", "An animal is asleep."]\n'
        f"{_ids_apart(card) if card.prompt and card.prompt_tokens == 'apart' else _ids_joined(card)}"
        'batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")\n'
        "with torch.inference_mode():\n"
        "    states = model(**batch).last_hidden_state\n"
        f"{_POOLING_LINES[card.pooling]}"
        "vectors = torch.nn.functional.normalize(pooled, dim=-1)\n"
        "```\n",
        *([f"{card.base_remark}\n"] if card.base_remark and card.is_adapter else []),
    ]


def _ids_joined(card: CardContent) -> str:
    """Lines that make `ids`, prompt and text put together first."""
    prompt = _prompt(card)
    assert prompt is not None
    before = prompt.parts[0]
    room = card.max_length - 1 if card.end_token else card.max_length
    texts = f"[{before!r} + text for text in texts]" if before else "texts"
    # Control tokens that a text spells are characters; those of a prompt would be, too.
    switch = "" if re.search(r"<\S+>|\[\S+\]", before) else ", split_special_tokens=True"
    ends = (
        "ids = [one if one[-1:] == [tokenizer.eos_token_id] else [*one, tokenizer.eos_token_id] for one in ids]\n"
        if card.end_token
        else ""
    )
    return f'ids = tokenizer({texts}, truncation=True, max_length={room}{switch})["input_ids"]\n{ends}'


def _ids_apart(card: CardContent) -> str:
    """The same, each cut into tokens alone; a blank before the text is the text's."""
    prompt = _prompt(card)
    assert prompt is not None
    before, behind = prompt.parts
    texts = "[' ' + text for text in texts]" if before.endswith(" ") else "texts"
    end = ", tokenizer.eos_token_id" if card.end_token else ""
    return (
        f"parts = [{before.removesuffix(' ')!r}, {behind!r}]\n"
        'before, behind = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)\n'
        'start = tokenizer("a")["input_ids"][:1]\n'
        f"before, behind = [*(start if start == [tokenizer.bos_token_id] else []), *before], [*behind{end}]\n"
        f'own = tokenizer({texts}, add_special_tokens=False, split_special_tokens=True)["input_ids"]\n'
        f"ids = [[*before, *one[: {card.max_length} - len(before) - len(behind)], *behind] for one in own]\n"
    )


_MASKED_MEAN = "pooled = (states * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)\n"
_POOLING_LINES = {
    Pooling.LAST: 'last = batch["attention_mask"].sum(1) - 1\npooled = states[torch.arange(len(last)), last]\n',
    Pooling.MEAN: 'weights = batch["attention_mask"].float()\n' + _MASKED_MEAN,
    Pooling.WEIGHTED_MEAN: 'weights = batch["attention_mask"].float().cumsum(1) * batch["attention_mask"]\n'
    + _MASKED_MEAN,
}
