"""data triplets."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from embedsmith.cli.app import data_app, make_console
from embedsmith.errors import ConfigError


@data_app.command("triplets")
def triplets_command(
    sources: Annotated[
        list[str], typer.Argument(help="Files or globs of labelled pairs (premise, hypothesis, label).")
    ],
    out: Annotated[Path, typer.Option(help="File to write: .tsv, .csv or .jsonl, maybe .gz.")],
    columns: Annotated[
        Optional[str], typer.Option(help="Column names, as in '{premise: text_a, hypothesis: text_b}'.")  # noqa: UP045
    ] = None,
) -> None:
    """Make triplets from labelled NLI pairs, as SimCSE does."""
    import yaml

    from embedsmith.data.nli import make_triplets

    named = yaml.safe_load(columns) if columns else None
    if named is not None and not isinstance(named, dict):
        raise ConfigError(f"--columns must be a mapping such as '{{premise: text_a}}', it is {columns!r}.")
    counts = make_triplets(sources, out=out, columns=named)
    make_console().print(
        f"{counts.num_triplets} triplets from {counts.num_pairs} labelled pairs "
        f"({counts.num_unlabelled} without a label skipped): {out}",
        highlight=False,
    )
