"""average."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import BaseModel, Device, app, at_home, heavy_imports, make_console


@app.command("average")
def average_command(
    models: Annotated[
        list[str],
        typer.Argument(
            callback=at_home,
            help="Runs or LoRA adapters on one base, or states of a run, RUN/late/step-...; one alone with --rank or "
            "--dtype.",
        ),
    ],
    to: Annotated[Path, typer.Option(callback=at_home, help="Folder to make, a MODEL again.")],
    weights: Annotated[
        list[float] | None,
        typer.Option(help="One for each, of any sum, several behind one --weights; default: all alike."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="Of the adapter; default: as many as the average needs, the sum of their ranks."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Of the adapter's weights as stored: fp32, bf16 or fp16.")] = "fp32",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Average the weights of runs into one model, or make an adapter smaller."""
    with heavy_imports():
        from embedsmith.verbs.average import average_models, describe_kept

    console = make_console()
    made = average_models(
        models, folder=to, weights=weights, rank=rank, dtype=dtype, base_model=base_model, device=device
    )
    ranks = "" if made.ranks is None else f" of rank {' to '.join(map(str, sorted(set(made.ranks))))}"
    kind = "all weights" if made.ranks is None else "an adapter"
    console.print(f"{to}: {kind}{ranks}, {made.size_bytes / 1e6:.2f} MB, from {len(models)}", soft_wrap=True)
    if made.kept:
        console.print(f"Kept of the updates' squared norm: {describe_kept(made.kept)}", soft_wrap=True)
    if made.smallest_cosine is not None:
        console.print(f"Smallest cosine to what it was made from, whole: {made.smallest_cosine:.6f}", soft_wrap=True)
