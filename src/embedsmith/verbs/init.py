"""init: training data -> a recipe with a word on every choice, and what the run will take here.

Rules, not a search: the settings that did well on the pages named beside them, brought to the size of the data.
"""

import math
import shlex
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from embedsmith.data.faults import Faults
from embedsmith.data.guess import FoundColumns, find_columns
from embedsmith.data.held_out import TEST_FOLDER, TRAIN_FILE, split_rows, write_split
from embedsmith.data.hub import is_hub_id
from embedsmith.data.readers import expand_sources
from embedsmith.data.roles import ColumnNames
from embedsmith.data.sample import SAMPLE, sample_triplets_path
from embedsmith.data.statistics import CountLengths, describe_data, token_lengths
from embedsmith.data.triplets import load_triplets
from embedsmith.model.loading.backbone import find_model, load_model_tokenizer
from embedsmith.model.loading.embedding_files import describe_model
from embedsmith.model.loading.settings import Described
from embedsmith.records.data_facts import DataFacts
from embedsmith.records.results import Plan
from embedsmith.settings.commented import Commented, write_settings, yaml_text
from embedsmith.settings.config import RunConfig
from embedsmith.settings.data import TrainSource
from embedsmith.settings.prompts import PROMPTS, TEXT_FIELD
from embedsmith.settings.recipe import parse_config
from embedsmith.settings.yaml_text import parse_yaml
from embedsmith.support.errors import ConfigError

_PROMPT = "pretended-cot"
_LARGEST_BATCH, _LEAST_BATCHES, _MOST_STEPS = 64, 10, 330
_SHORTEST, _LONGEST, _BLOCK = 32, 512, 16  # of max_length
_NEVER_CUT = 256
"""Tokens of a text. Where some have more, the twentieth of the texts that is longest may be cut."""
_HELD_OUT = 0.1
_ADAPTER = [
    Commented("lora_r", 32, "rank; 8 does about as well and makes a quarter of the file (docs/quality.md)"),
    Commented("lora_alpha", 64),
    Commented("lora_dropout", 0.0),
    Commented("target_modules", "all-linear", "more than query and value projections"),
]


@dataclass(frozen=True)
class Draft:
    """A recipe that is not written yet.

    Attributes:
        text: the recipe.
        config: what it says.
        facts: about the data.
        columns: a line for each role's columns.
        remarks: what to know of the data: columns that are not used, rows that teach the wrong thing.
        advice: what to look at, or do, before training.
    """

    text: str
    config: RunConfig
    facts: DataFacts
    columns: tuple[str, ...]
    remarks: tuple[str, ...]
    advice: tuple[str, ...]

    def with_head(self, *, command: str, plan: Plan | None) -> str:
        """The file: what it was made by and of, and what the run will take, over the recipe."""
        head = [
            f"Made by `{command}`: read it, change it, run it. What else there is: docs/settings.md.",
            f"Data: {self.facts.num_rows:,} {self.facts.kind}.",
            *self.columns,
            *self.remarks,
        ]
        if plan is not None:
            head.append(f"Foretold for this machine ({plan.device}): {describe_plan(plan)}.")
        return "".join(f"# {line}\n" for line in head) + self.text


@dataclass(frozen=True)
class HeldOut:
    """Where the rows to train on lie, the folder of the test, and both in a sentence."""

    train: str
    test: str
    description: str


def describe_plan(plan: Plan) -> str:
    """A run's length, time and memory in a line."""
    return f"{plan.num_steps} steps, {plan.total_s / 60:.1f} minutes, {plan.peak_bytes / 1e9:.1f} GB"


def draft_recipe(
    sources: Sequence[str],
    *,
    model: str,
    output_dir: str,
    columns: ColumnNames | None = None,
    dev: str | None = None,
    teacher: str | None = None,
    has_test: bool = False,
) -> Draft:
    """Look at training data and choose settings for it.

    Args:
        sources: files, globs, hub dataset ids or `sample`, as `data.train` takes them.
        model: what is to be trained.
        output_dir: of the run.
        columns: as `data.columns`; None: by their names, and where those are not the usual ones, guessed.
        dev: file of scored pairs to choose the best step by.
        teacher: whose vectors texts without a partner are trained to have.
        has_test: whether there is something to score the run on afterwards.

    Raises:
        DataError: as `load_triplets` and `find_columns`.
        ModelError: the model cannot be found.
        ConfigError: the rows are texts alone, and there is no teacher, or the other way round.
    """
    found = _look_into(sources, columns=columns)
    table = load_triplets(found.sources, columns=found.columns)
    if table.has_texts and teacher is None:
        raise ConfigError(_no_teacher(found, remarks=table.facts.remarks))
    if teacher is not None and not table.has_texts:
        raise ConfigError(f"The rows are {table.kind}, and --teacher is for texts alone.\nSee docs/losses.md.")
    described = describe_model(find_model(model))
    count_tokens = token_lengths(load_model_tokenizer(described.settings.base_model))
    facts = describe_data(table, count_lengths=count_tokens)
    sections = {
        "model": _model_settings(model, described=described, facts=facts, count_tokens=count_tokens),
        "data": _data_settings(found),
        "adapter": _ADAPTER,
        "training": _training_settings(facts),
        **({"teacher": _teacher_settings(teacher)} if teacher else {}),
        "evaluation": [_dev_setting(dev)],
    }
    text = write_settings(output_dir, sections)
    config = parse_config(parse_yaml(text), source="the recipe for this data")
    return Draft(
        text=text,
        config=config,
        facts=facts,
        columns=tuple(_describe_columns(found, facts)),
        remarks=table.facts.remarks,
        advice=tuple(_advice(facts, found=found, has_test=has_test or bool(dev))),
    )


def hold_out(sources: Sequence[str], *, columns: ColumnNames | None, folder: Path) -> HeldOut:
    """Write a tenth of the rows as a test and the others as a file to train on.

    Args:
        sources: as `draft_recipe`.
        columns: as `draft_recipe`.
        folder: to be made.

    Raises:
        ConfigError: the rows are texts alone.
        DataError: as `load_triplets` and `split_rows`.
    """
    found = _look_into(sources, columns=columns)
    table = load_triplets(found.sources, columns=found.columns)
    if table.has_texts:
        raise ConfigError("The rows are texts alone, and nothing says what is right for one.\nLeave --held-out away.")
    split = split_rows(table, share=_HELD_OUT)
    write_split(folder, table, split)
    kind = "scored pairs" if table.has_scores else "a retrieval set"
    said = (
        f"Held out: {len(split.held_out):,} of {len(table):,} rows, which share no anchor and no positive with the "
        f"others, as {kind} in {folder / TEST_FOLDER}; to train on: {folder / TRAIN_FILE}"
    )
    return HeldOut(str(folder / TRAIN_FILE), str(folder / TEST_FOLDER), said)


@dataclass(frozen=True)
class _Found:
    """The sources with what their columns are.

    Attributes:
        sources: for `data.train`, with names of their own where they differ.
        columns: for `data.columns`: names that all have.
        roles: column -> its role, of those that are used.
        guessed: columns whose role was found by what stands in them.
    """

    sources: Sequence[str | TrainSource]
    columns: ColumnNames
    roles: Mapping[str, str]
    guessed: Set[str]


def _look_into(sources: Sequence[str], *, columns: ColumnNames | None) -> _Found:
    each = [_find_columns(source, columns=columns) for source in sources]
    roles = {name: role for one in each for name, role in one.roles.items()}
    guessed = {name for one in each if one.is_guess for name in one.roles}
    if all(one.named == each[0].named for one in each):
        return _Found(sources, each[0].named, roles, guessed)
    named = [
        TrainSource(files=source, columns=dict(one.named)) if one.named else source
        for source, one in zip(sources, each, strict=True)
    ]
    return _Found(named, {}, roles, guessed)


def _find_columns(source: str, *, columns: ColumnNames | None) -> FoundColumns:
    """Of its first file; its others must have the same."""
    if is_hub_id(source):
        return FoundColumns(columns or {}, {}, is_guess=False)
    faults = Faults()
    paths = [sample_triplets_path()] if source == SAMPLE else expand_sources([source], faults=faults)
    faults.raise_if_any(what="training data")
    return find_columns(paths[0], columns=columns)


def _no_teacher(found: _Found, *, remarks: Sequence[str]) -> str:
    guessed = f" (of the column {', '.join(found.roles)}, guessed)" if found.guessed else ""
    lines = [f"The rows are texts alone{guessed}, and learn from a teacher's vectors.", *remarks]
    lines.append("Name one: --teacher MODEL")
    if remarks:
        lines.append("Or name the columns that belong together: --columns '{anchor: COLUMN, positive: COLUMN}'")
    return "\n".join(lines)


def _describe_columns(found: _Found, facts: DataFacts) -> list[str]:
    lines = []
    for column in facts.columns:
        shortest, _, median, _, longest = column.lengths.quantiles
        names = [name for name, role in found.roles.items() if role == column.name]
        guessed = "" if found.guessed.isdisjoint(names) else ", guessed"
        origin = f" (column {', '.join(names)}{guessed})" if names else ""
        lines.append(
            f"{column.name}{origin}: {column.num_distinct:,} distinct texts of {shortest:.0f} to {longest:.0f} tokens, "
            f"median {median:.0f}"
        )
    return lines


def _model_settings(
    model: str, *, described: Described, facts: DataFacts, count_tokens: CountLengths
) -> list[Commented]:
    if described.origins:  # it is an embedding model, and goes on as it is
        own = described.settings
        settings = [
            Commented(name, value, f"as {described.origins[name]} says" if name in described.origins else "")
            for name in ("pooling", "prompt", "query_prompt", "end_token", "bidirectional_layers")
            if (value := getattr(own, name)) is not None
        ]
        prompt = max((own.prompt or "", own.query_prompt or ""), key=len)
    else:
        settings = [
            Commented("pooling", "last", "the state at the last token"),
            Commented("prompt", _PROMPT, "ends where a word would follow that says it all (docs/methods.md)"),
            Commented("end_token", False, "so the prompt's last token is the last one"),
        ]
        prompt = PROMPTS[_PROMPT].template
    around = count_tokens([prompt.replace(TEXT_FIELD, " ")])[0] + 2  # start and end
    wanted = _BLOCK * math.ceil((_most_tokens(facts) + around) / _BLOCK)
    max_length = min(_LONGEST, max(_SHORTEST, wanted))
    rest = "longer texts are cut" if max_length - around < _longest(facts) else "nothing is cut"
    return [
        Commented("model", model),
        *settings,
        Commented("max_length", max_length, f"tokens, {around} of them for what stands around a text; {rest}"),
    ]


def _longest(facts: DataFacts) -> float:
    return max(column.lengths.quantiles[-1] for column in facts.columns)


def _most_tokens(facts: DataFacts) -> float:
    """Tokens of a text that there is room for."""
    if _longest(facts) <= _NEVER_CUT:
        return _longest(facts)
    return max(_NEVER_CUT, *(column.lengths.quantiles[-2] for column in facts.columns))


def _data_settings(found: _Found) -> list[Commented]:
    asked = "guessed: is it so?" if found.guessed else ""
    sources = [
        source if isinstance(source, str) else {"files": source.files, "columns": source.columns}
        for source in found.sources
    ]
    if not found.columns:
        return [Commented("train", sources, asked)]
    return [Commented("train", sources), Commented("columns", dict(found.columns), asked)]


def _training_settings(facts: DataFacts) -> list[Commented]:
    num_rows = facts.num_rows
    batch_size = min(_LARGEST_BATCH, 2 ** int(math.log2(max(2, num_rows // _LEAST_BATCHES))))
    passes = 1 if num_rows >= 150 * _LARGEST_BATCH else 2 if num_rows >= 50 * _LARGEST_BATCH else 3
    steps = max(2, min(_MOST_STEPS, passes * num_rows // batch_size))
    ordered = facts.scores is not None or len(facts.columns) == 1
    return [
        Commented("max_steps", steps, f"{steps * batch_size / num_rows:.2g} passes over {num_rows:,} rows"),
        Commented("batch_size", batch_size, "" if ordered else f"each row is told from {batch_size - 1} others"),
        Commented("learning_rate", 5.0e-4, "peak, after the warm-up (docs/quality.md)"),
        Commented("warmup_steps", max(1, steps // 10)),
        Commented("temperature", 0.05),
        Commented("seed", 7),
    ]


def _teacher_settings(teacher: str) -> list[Commented]:
    return [
        Commented("teacher", teacher),
        Commented("embedding_weight", 1.0, "its vectors are all that is learned from (docs/losses.md)"),
    ]


def _dev_setting(dev: str | None) -> Commented:
    if dev is None:
        return Commented("dev", None, "a file of scored pairs, to keep the best step; none: the last one is kept")
    return Commented("dev", dev, "the step that does best here is kept")


def _advice(facts: DataFacts, *, found: _Found, has_test: bool) -> list[str]:
    names = [source for source in found.sources if isinstance(source, str)]
    has_own_columns = len(names) < len(found.sources)  # for which other commands have no option
    data = shlex.join([*names, *(["--columns", yaml_text(dict(found.columns))] if found.columns else [])])
    advice = []
    if facts.num_repeated_rows:
        advice.append(f"{facts.num_repeated_rows:,} rows stand there before, word for word.")
    if facts.num_contradictions:
        advice.append(f"{facts.num_contradictions:,} times a text is positive in one row and negative in another.")
    if _longest(facts) > _most_tokens(facts):
        look = "" if has_own_columns else f": embedsmith data stats {data}"
        advice.append(f"The longest text has {_longest(facts):,.0f} tokens{look or '.'}")
    if facts.kind == "pairs" and not has_own_columns:
        advice.append(f"Hard negatives can be found: embedsmith data mine {data} --model MODEL --out mined.jsonl")
    if not has_test:
        advice.append(
            "Hold out some texts, by page, product or date, or by --held-out FOLDER, and score them afterwards."
        )
    return advice
