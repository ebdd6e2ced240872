"""Runs and models -> one page: scored on the same tasks, compared with the first, looked into, data and cost beside.

A run alone is compared with the model it was trained from, without training: with the best of its poolings, which is
the honest mark to beat.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from embedsmith.data.leakage import LeakageCheck
from embedsmith.data.local_sets import set_name
from embedsmith.data.pairs import ScoredPairs, load_pairs
from embedsmith.data.sample import SAMPLE
from embedsmith.data.statistics import describe_data, token_lengths
from embedsmith.data.triplets import load_triplets
from embedsmith.evaluation.analysis import Analysis, analyse, distinct_texts
from embedsmith.evaluation.correlation import spearman
from embedsmith.evaluation.sts import load_local_tasks, pair_similarities
from embedsmith.model.embedder import Embedder
from embedsmith.model.embedding_model import load_embedding_model, take_sts_prompt
from embedsmith.records.data_facts import DataFacts, LeakageReport
from embedsmith.records.results import Verdict
from embedsmith.reporting.report import ReportContent, write_report
from embedsmith.settings.choices import Pooling, Side
from embedsmith.settings.config import RunConfig
from embedsmith.settings.recipe import load_config
from embedsmith.support import files
from embedsmith.support.display import encoding_progress
from embedsmith.support.errors import DataError, MissingExtraError
from embedsmith.support.free_memory import let_go
from embedsmith.verbs.evaluate import find_published, say_cut
from embedsmith.verbs.prepare import load_base
from embedsmith.verbs.run_folder import CONFIG_FILE, is_run, read_run

TITLES = {
    Pooling.LAST: "end token",
    Pooling.MEAN: "mean",
    Pooling.WEIGHTED_MEAN: "weighted mean",
    Pooling.CONCAT: "end token and mean",
}


def report_models(
    models: Sequence[str],
    *,
    out: Path,
    tasks: Sequence[str] | None = None,
    data: Path | None = None,
    columns: Mapping[str, str] | None = None,
    with_data: bool = True,
    device: str | None = None,
    console: Console | None = None,
) -> ReportContent:
    """Write the page.

    Args:
        models: each a MODEL or a sentence-transformers encoder; one run alone is put beside what it was trained from.
        out: the page's file.
        tasks: names; None: every file in `data`.
        data: folder of the tasks' files; None: the last run's development set, or the built-in one.
        columns: {sentence1: ..., sentence2: ..., score: ...} where those files name them otherwise.
        with_data: look into the training data of the last run too, and for these tasks' texts in it.
        device: a torch device; None: CUDA where there is one, else the CPU.
        console: where progress goes; None: nowhere.

    Raises:
        MissingExtraError: the report's packages are not installed.
        DataError, ModelError, RunError: by their names.
    """
    from embedsmith.reporting import plots  # noqa: F401 (a missing extra must show at once)

    files.check_output(out, option="the page")
    console = console or Console(quiet=True)
    runs = [model for model in models if is_run(model)]
    labels = _labels(models)
    records = [read_run(Path(model), title=labels[model]) for model in runs]
    config = load_config(Path(runs[-1]) / CONFIG_FILE) if runs else None
    loaded = load_local_tasks(data, tasks, columns=columns) if data is not None else _development_set(config)
    texts = distinct_texts(loaded)
    vectors: dict[str, np.ndarray] = {}
    with encoding_progress(console) as (start, advance):
        if len(models) == 1 and config is not None:
            start(f"{config.model.model}, untrained")
            vectors |= _untrained(config, tasks=loaded, texts=texts, device=device, on_progress=advance)
        for model in models:
            start(model)
            let_go()  # of the one before
            embedder = load_embedding_model(model, device=device)
            take_sts_prompt(embedder, name=model)
            vectors[labels[model]] = embedder.encode(texts, side=Side.QUERY, on_progress=advance)
            say_cut(embedder, texts, where=labels[model])
            if runs and model == runs[-1]:
                assert isinstance(embedder, Embedder), "a run is a decoder's"
                tokenizer = embedder.backbone.tokenizer
            del embedder
    console.print("Comparing and looking into them ...", highlight=False)
    analysis = analyse(loaded, vectors)
    facts, leakage, remarks = None, None, list[str]()
    if with_data and config is not None:
        facts, leakage, remarks = look_into_data(config, loaded, tokenizer=tokenizer)
    remarks += [f"{title}: {reason}" for title, one in analysis.rows for reason in one.failures.values()]
    content = ReportContent(
        title=" · ".join(labels.values()),
        headline=headline(analysis),
        analysis=analysis,
        runs=records,
        published=find_published(analysis.rows, model=models[-1]),
        data=facts,
        leakage=leakage,
        remarks=remarks,
    )
    write_report(out, content)
    return content


def headline(analysis: Analysis) -> str:
    """The result of the last model in one sentence."""
    title, last = analysis.rows[-1]
    where = f"on average over {len(last.tasks)} tasks" if len(last.tasks) > 1 else f"on {next(iter(last.tasks))}"
    if not analysis.comparisons:
        return f"{title}: Spearman × 100 of {100 * last.average:.1f} {where}."
    found = analysis.comparisons[-1]
    one = found.average
    lower, upper = (100 * bound for bound in one.ci95)
    scores = f"Spearman × 100 from {100 * one.base:.1f} to {100 * one.model:.1f} {where}"
    size = f"{100 * one.gain:+.1f} [{lower:+.1f}, {upper:+.1f}]"
    if found.verdict is Verdict.CANNOT_TELL:
        return f"Whether {title} is better than {found.base} cannot be told: {scores}, {size}."
    return f"{title} is {found.verdict} than {found.base}: {scores}, {size}."


def look_into_data(
    config: RunConfig, tasks: Mapping[str, ScoredPairs], *, tokenizer: Any
) -> tuple[DataFacts | None, LeakageReport | None, list[str]]:
    """Facts of a run's training data in its tokens, what of the tasks is in it, and what could not be found out."""
    try:
        table = load_triplets(config.data.train, columns=config.data.columns)
    except DataError as error:
        return None, None, [f"The training data cannot be looked into any more: {error}"]
    if config.data.max_triplets:
        table = table.draw(config.data.max_triplets)
    remarks = list(table.facts.remarks)
    try:
        check = LeakageCheck(tasks)
    except MissingExtraError as error:
        check = LeakageCheck(tasks, threshold=None)
        remarks.append(f"Near duplicates were not looked for. {error}")
    return (
        describe_data(table, count_lengths=token_lengths(tokenizer)),
        check.run(table)[0],
        remarks,
    )


def _development_set(config: RunConfig | None) -> dict[str, ScoredPairs]:
    if config is None or config.evaluation.dev in (None, SAMPLE):
        return {"sample-dev": load_pairs(SAMPLE)}
    assert config.evaluation.dev
    name = set_name(Path(config.evaluation.dev).name)
    return {name: load_pairs(config.evaluation.dev, columns=config.evaluation.dev_columns)}


def _labels(models: Sequence[str]) -> dict[str, str]:
    """MODEL -> what the page calls it: a folder by its name, where no other model has the same."""
    names = [_name(Path(model)) for model in models]
    return {model: name if names.count(name) == 1 else model for model, name in zip(models, names, strict=True)}


def _name(path: Path) -> str:
    """The last part, and the one before where it is no name of its own, as in packages that hold a model."""
    return "/".join(path.parts[-2:]) if path.name == "model" else path.name


def _untrained(
    config: RunConfig,
    *,
    tasks: Mapping[str, ScoredPairs],
    texts: list[str],
    device: str | None,
    on_progress: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """What a run was trained from, without training: under its best pooling, which is the mark to beat, and under the
    run's own."""
    embedder = load_base(config.model, device=device)
    vectors = embedder.encode_poolings(texts, poolings=embedder.poolings, side=Side.QUERY, on_progress=on_progress)
    row_of = {text: row for row, text in enumerate(texts)}

    def embed(asked: list[str]) -> dict[str, np.ndarray]:
        rows = [row_of[text] for text in asked]
        return {pooling: values[rows] for pooling, values in vectors.items()}

    averages = dict.fromkeys(vectors, 0.0)
    for pairs in tasks.values():
        for pooling, cosines in pair_similarities(embed, pairs).items():
            averages[Pooling(pooling)] += spearman(cosines, pairs.scores) / len(tasks)
    best = max(averages, key=lambda pooling: averages[pooling])
    return {
        f"untrained ({_title(pooling, config=config)})": vectors[pooling]
        for pooling in dict.fromkeys((best, config.model.pooling))
    }


def _title(pooling: Pooling | str, *, config: RunConfig) -> str:
    """In words; what the last token is depends on the prompt where no end token is put."""
    title = TITLES[Pooling(pooling)]
    return title if config.model.end_token else title.replace("end token", "last token")
