"""encode."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import PROMPT_HELP, BaseModel, Device, Model, app, at_home, heavy_imports, make_console, output
from embedsmith.settings.config import Side, VectorPrecision
from embedsmith.support import files


@app.command("encode")
def encode_command(
    model: Model,
    sources: Annotated[
        list[str],
        typer.Argument(callback=at_home, help="Texts: files (.txt: one a line), globs, or folders in BEIR's layout."),
    ],
    out: Annotated[Path, typer.Option(callback=output(suffix=".npy"), help="Write the vectors here (.npy).")],
    text_column: Annotated[str, typer.Option(help="Column of the text; a `title` goes before a `text`.")] = "text",
    side: Annotated[Side, typer.Option(help="Whether the texts are documents or queries.")] = Side.DOCUMENT,
    prompt: Annotated[str | None, typer.Option(help=PROMPT_HELP)] = None,
    instruction: Annotated[str | None, typer.Option(help="Fills {instruction} in the prompt.")] = None,
    dim: Annotated[int | None, typer.Option(help="Keep the first DIM dimensions.")] = None,
    vector_precision: Annotated[
        VectorPrecision, typer.Option(help="Of the vectors: float32, int8, uint8, binary or ubinary.")
    ] = VectorPrecision.FLOAT32,
    ranges: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Ranges of int8 and uint8, as this command wrote them beside others."),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            callback=at_home,
            help="Files of texts to take the ranges of, several behind one --calibration; default: these texts.",
        ),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Write the vectors of texts, in float32, 8 bits or one bit a dimension."""
    with heavy_imports():
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.verbs.encode import encode, ranges_path

    if ranges is None and vector_precision in (VectorPrecision.INT8, VectorPrecision.UINT8):
        files.check_output(ranges_path(out), option="--out", holds=("minimum", "maximum"))
    console = make_console()
    written = encode(
        model,
        sources=sources,
        out=out,
        column=text_column,
        side=side,
        prompt=prompt,
        instruction=instruction,
        dim=dim,
        vector_precision=vector_precision,
        ranges=ranges,
        calibration=calibration or (),
        base_model=base_model,
        precision=choose_precision(precision),
        device=device,
        console=console,
    )
    num_texts = written.shape[0]
    console.print(
        f"{out}: {num_texts:,} vectors of {written.dim} dimensions, {vector_precision}, {written.size_bytes:,} bytes"
        + (f"; {written.num_cut:,} texts were cut" if written.num_cut else ""),
        soft_wrap=True,
    )
    if written.ranges is not None:
        console.print(f"ranges: {written.ranges}", soft_wrap=True)
