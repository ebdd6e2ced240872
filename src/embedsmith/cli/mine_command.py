"""data mine."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import (
    PROMPT_HELP,
    BaseModel,
    Device,
    at_home,
    data_app,
    heavy_imports,
    make_console,
    output,
    read_columns,
)
from embedsmith.settings.choices import CandidatePool, NegativeChoice, OwnNegatives, Pooling, SearchKind, TooFew
from embedsmith.support.errors import ConfigError


def _number_or_none(text: str) -> float | None:
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"--relative-margin is {text!r}; it must be a number, or none.") from None


@data_app.command("mine")
def mine_command(
    sources: Annotated[
        list[str], typer.Argument(callback=at_home, help="Pairs or triplets: files, globs, hub ids or `sample`.")
    ],
    out: Annotated[Path, typer.Option(callback=output(), help="File to write: .tsv, .csv or .jsonl, maybe .gz.")],
    model: Annotated[
        str,
        typer.Option(
            callback=at_home,
            help="What embeds: built-in name, hub id, folder, run, adapter or sentence-transformers model.",
        ),
    ],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            callback=at_home,
            help="Texts that negatives may be taken from: files, or folders in BEIR's layout; several behind one "
            "--corpus.",
        ),
    ] = None,
    text_column: Annotated[
        str, typer.Option(help="Column of the corpus's text; a `title` goes before a `text`.")
    ] = "text",
    candidates: Annotated[
        list[CandidatePool] | None,
        typer.Option(
            help="Where negatives come from: positives, negatives or anchors of other rows, corpus; several behind one "
            "--candidates; default: positives, and the corpus where there is one."
        ),
    ] = None,
    num_negatives: Annotated[int, typer.Option(min=1, help="Negatives to mine for a row.")] = 3,
    first_rank: Annotated[int, typer.Option(min=1, help="1 is the nearest text that the other rules leave.")] = 1,
    last_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="So many of the nearest are looked at; default: 100, or ten times the negatives if that is more.",
        ),
    ] = None,
    relative_margin: Annotated[
        str,
        typer.Option(
            metavar="FLOAT|none",
            help="A text is taken for a false negative if its similarity is above (1 - margin) of the positive's.",
        ),
    ] = "0.05",
    absolute_margin: Annotated[
        float | None, typer.Option(help="The same, above the positive's less this margin.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(help="No text more similar than this (cosine).")] = None,
    min_score: Annotated[float | None, typer.Option(help="No text less similar than this (cosine).")] = None,
    choice: Annotated[
        NegativeChoice, typer.Option(help="Which of the texts left: top or random.")
    ] = NegativeChoice.TOP,
    seed: Annotated[int, typer.Option(min=0, help="Of the random choice, and of the examples shown.")] = 7,
    own_negatives: Annotated[
        OwnNegatives, typer.Option(help="Negatives that rows have: keep them before the mined ones, or replace.")
    ] = OwnNegatives.KEEP,
    too_few: Annotated[
        TooFew, typer.Option(help="Rows with fewer mined negatives than wanted: keep or drop.")
    ] = TooFew.KEEP,
    symmetric: Annotated[
        bool, typer.Option("--symmetric/--asymmetric", help="Embed candidates under the prompt of queries, as for STS.")
    ] = False,
    pooling: Annotated[
        Pooling | None, typer.Option(help="last, mean, weighted_mean or concat; default: as trained.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help=PROMPT_HELP)] = None,
    instruction: Annotated[
        str | None, typer.Option(help="Fills {instruction} in the prompt, where a row has none of its own.")
    ] = None,
    end_token: Annotated[
        bool | None,
        typer.Option("--end-token/--no-end-token", help="Whether texts end with the end token; default: as trained."),
    ] = None,
    search: Annotated[
        SearchKind,
        typer.Option(
            help="exact, through an index (embedsmith[index]), or auto: exact up to a million candidates.",
        ),
    ] = SearchKind.AUTO,
    scores: Annotated[
        bool,
        typer.Option("--scores/--no-scores", help="Write similarities too, in columns that training does not use."),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(help="Column names, as in '{anchor: question, negative: [wrong_a, wrong_b]}'."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Find hard negatives for pairs or triplets: texts that a model finds near an anchor, and are no positives."""
    with heavy_imports():
        from embedsmith.data.mining import MiningRules
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.reporting.tables import mining_table
        from embedsmith.verbs.mine import MiningModel, mine

    if corpus is None and text_column != "text":
        raise ConfigError("--text-column is the corpus's, and there is none.\nName its files with --corpus.")
    rules = MiningRules(
        num_negatives=num_negatives,
        first_rank=first_rank,
        last_rank=last_rank,
        relative_margin=_number_or_none(relative_margin),
        absolute_margin=absolute_margin,
        max_score=max_score,
        min_score=min_score,
        choice=choice,
        seed=seed,
    )
    embedding = MiningModel(
        model,
        pooling=pooling,
        prompt=prompt,
        instruction=instruction,
        end_token=end_token,
        base_model=base_model,
        precision=choose_precision(precision),
        device=device,
        is_symmetric=symmetric,
    )
    console = make_console()
    report = mine(
        sources,
        out=out,
        model=embedding,
        rules=rules,
        corpus=corpus or (),
        text_column=text_column,
        pools=candidates or (),
        columns=read_columns(columns, takes_lists=True),
        keeps_negatives=own_negatives is OwnNegatives.KEEP,
        too_few=too_few,
        search=search,
        with_scores=scores,
        console=console,
    )
    console.print(mining_table(report))
    for one in report.examples:
        console.print(f"{one.anchor}\n  {one.positive_score:.3f} positive: {one.positive}")
        for text, score in one.negatives:
            console.print(f"  {score:.3f} negative: {text}")
    console.print(f"{report.num_written:,} rows with {report.num_negatives:,} mined negatives: {out}")
