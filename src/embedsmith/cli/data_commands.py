"""data triplets, data synthesize, data check, data stats."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import at_home, data_app, heavy_imports, make_console, output, read_columns
from embedsmith.support.errors import ConfigError


@data_app.command("triplets")
def triplets_command(
    sources: Annotated[
        list[str],
        typer.Argument(callback=at_home, help="Files or globs of labelled pairs (premise, hypothesis, label)."),
    ],
    out: Annotated[Path, typer.Option(callback=output(), help="File to write: .tsv, .csv or .jsonl, maybe .gz.")],
    columns: Annotated[
        str | None, typer.Option(help="Column names, as in '{premise: text_a, hypothesis: text_b}'.")
    ] = None,
) -> None:
    """Make triplets from labelled NLI pairs, as SimCSE does."""
    from embedsmith.data.nli import make_triplets

    counts = make_triplets(sources, out=out, columns=read_columns(columns))
    console = make_console()
    console.print(f"{counts.num_triplets} triplets from {counts.num_pairs} labelled pairs: {out}")
    console.print(f"  {counts.num_unlabelled} pairs skipped: without a label")
    console.print(f"  {counts.num_placeholders} pairs skipped: a text such as n/a, which says nothing")
    console.print(
        f"  {counts.num_unpaired} pairs left over: their premise has no partner for them; neutral ones are not used"
    )
    for doubt, count in counts.num_doubtful.most_common():
        console.print(f"  {count} triplets skipped: {doubt}")


@data_app.command("synthesize")
def synthesize_command(
    out: Annotated[Path, typer.Option(callback=output(), help="File to write, or to go on with: JSON lines.")],
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible, as in http://localhost:8000/v1")],
    model: Annotated[str, typer.Option(help="As the endpoint calls it.")],
    num_triplets: Annotated[int, typer.Option(min=1, help="Triplets the file shall hold.")] = 1000,
    task_types: Annotated[
        list[str] | None,
        typer.Option(help="Kinds of task, several behind one --task-types; default: all but bitext."),
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option(help="As the model knows them, several behind one --languages; default: English."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is asked.")] = 7,
    temperature: Annotated[float, typer.Option(help="Of the answers.")] = 1.0,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 8,
    max_requests: Annotated[int | None, typer.Option(min=1, help="Requests of this run at most.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Seconds for one request.")] = 60.0,
    api_key_env: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
) -> None:
    """Have a chat model write triplets with instructions; goes on where it was when started again."""
    from embedsmith.data.chat import ChatEndpoint
    from embedsmith.data.synthesize import Synthesis, synthesize

    kinds = tuple(task_types or ("short-long", "long-short", "short-short", "long-long", "sts"))
    synthesis = Synthesis(model, kinds, tuple(languages or ("English",)), seed, temperature)
    console = make_console()
    with console.status("asking ...") as status:
        outcome = synthesize(
            synthesis,
            endpoint=ChatEndpoint(endpoint, model, api_key_env, temperature, timeout_s),
            out=out,
            num_triplets=num_triplets,
            concurrency=concurrency,
            max_requests=max_requests,
            on_progress=lambda count: status.update(f"{count} of {num_triplets} triplets"),
        )
    console.print(f"{outcome.num_triplets} triplets in {out}, {outcome.num_requests} requests now")
    for reason, count in outcome.rejected.most_common():
        console.print(f"  {count} answers left out: {reason}")


@data_app.command("check")
def check_command(
    sources: Annotated[
        list[str], typer.Argument(callback=at_home, help="Training data: files, globs, hub ids or `sample`.")
    ],
    against: Annotated[
        list[str],
        typer.Option(
            callback=at_home,
            help="Evaluation data: files of scored pairs, duplicate sets and clustering sets, folders of them or of "
            "retrieval sets in BEIR's layout; several behind one --against.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(help="Column names, as in '{anchor: question, negative: [wrong_a, wrong_b]}'."),
    ] = None,
    near: Annotated[bool, typer.Option("--near/--no-near", help="Look for near duplicates too.")] = True,
    threshold: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Share of common character n-grams that makes texts near.")
    ] = 0.8,
    drop: Annotated[
        Path | None,
        typer.Option(callback=output(), help="Write the training rows that share no text with the evaluation here."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(callback=output(suffix=".json"), help="Write what was found here (JSON).")
    ] = None,
) -> None:
    """Look for evaluation texts in training data; ends in a line that says: clean, texts overlap or pairs overlap."""
    with heavy_imports():
        from embedsmith.data.leakage import LeakageCheck, write_clean
        from embedsmith.data.remarks import say_remarks
        from embedsmith.data.triplets import load_triplets
        from embedsmith.data.writers import check_output
        from embedsmith.evaluation.sts import load_evaluation_sets
        from embedsmith.reporting.tables import leakage_table
        from embedsmith.support import files

    if drop is not None:
        check_output(drop, option="--drop")
    if out is not None:
        files.check_output(out, option="--out", holds=("verdict", "overlaps", "num_shared_rows"))
    if drop is not None and out is not None and drop.resolve() == out.resolve():
        raise ConfigError(f"--drop and --out are both {out}.\nName two files.")
    console = make_console()
    table = load_triplets(sources, columns=read_columns(columns, takes_lists=True))
    say_remarks(table.facts.remarks)
    with console.status("looking ..."):
        check = LeakageCheck(load_evaluation_sets(against), threshold=threshold if near else None)
        report, is_shared = check.run(table)
    console.print(leakage_table(report))
    for overlap in report.overlaps:
        for one in overlap.examples:
            console.print(f"{overlap.name}, {one.match.word}: {one.evaluated}\n  trained on: {one.trained}")
    console.print(
        f"{report.num_shared_rows} of {report.num_rows} training rows share a text with the evaluation.",
        highlight=False,
    )
    if out is not None:
        files.write_json(out, report.to_json())
    if drop is not None:
        console.print(f"{write_clean(drop, table, is_shared=is_shared)} rows written: {drop}")
    console.print(f"verdict: {report.verdict}")


@data_app.command("stats")
def stats_command(
    sources: Annotated[
        list[str], typer.Argument(callback=at_home, help="Training data: files, globs, hub ids or `sample`.")
    ],
    columns: Annotated[
        str | None,
        typer.Option(help="Column names, as in '{anchor: question, negative: [wrong_a, wrong_b]}'."),
    ] = None,
    model: Annotated[
        str, typer.Option(callback=at_home, help="Whose tokens are counted: built-in name, hub id or folder.")
    ] = "smollm2-135m",
    out: Annotated[
        Path | None, typer.Option(callback=output(suffix=".json"), help="Write what was found here (JSON).")
    ] = None,
) -> None:
    """Look into training data: counts, duplicates, lengths in tokens, words shared with the anchor, examples."""
    with heavy_imports():
        from embedsmith.data.remarks import say_remarks
        from embedsmith.data.statistics import describe_data, token_lengths
        from embedsmith.data.triplets import load_triplets
        from embedsmith.model.loading.backbone import load_model_tokenizer
        from embedsmith.reporting.tables import facts_table, histogram
        from embedsmith.support import files

    if out is not None:
        files.check_output(out, option="--out", holds=("kind", "num_rows", "num_repeated_rows"))
    console = make_console()
    table = load_triplets(sources, columns=read_columns(columns, takes_lists=True))
    say_remarks(table.facts.remarks)
    with console.status("counting ..."):
        facts = describe_data(table, count_lengths=token_lengths(load_model_tokenizer(model)))
    console.print(facts_table(facts))
    for column in facts.columns:
        console.print(histogram(f"{column.name}, {column.num_distinct:,} distinct, length in tokens", column.lengths))
    for name, values in facts.overlaps.items():
        console.print(histogram(f"words {name} shares with {facts.columns[0].name} (Jaccard)", values))
    if facts.scores is not None:
        console.print(histogram("score", facts.scores))
    for number, texts in enumerate(facts.labelled_examples, start=1):
        console.print(f"example {number}")
        for name, text in texts:
            console.print(f"  {name}: {text}")
    if out is not None:
        files.write_json(out, facts.to_json())
