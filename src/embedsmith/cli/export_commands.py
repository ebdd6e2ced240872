"""export."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import BaseModel, Model, app, at_home, heavy_imports, make_console
from embedsmith.support import files
from embedsmith.support.errors import ConfigError


@app.command("export")
def export_command(
    model: Model,
    folder: Annotated[Path, typer.Argument(callback=at_home, help="Folder to make.")],
    to: Annotated[
        str, typer.Option(help="merged (transformers), sentence-transformers, onnx, openvino or static (model2vec).")
    ],
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the weights stored: fp32; bf16 in merged and sentence-transformers; fp16 or int8 in graphs."
        ),
    ] = "fp32",
    dim: Annotated[int | None, typer.Option(help="Of a static model; default: 256, or all of fewer.")] = None,
    base_model: BaseModel = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where model and folder are compared, in float32 and one after the other; where the tokens of a "
            "static model are embedded."
        ),
    ] = "cpu",
) -> None:
    """Write a folder that other tools load; kept only if it embeds as the model does."""
    with heavy_imports():
        from embedsmith.export.folders import Dtype, Format, export
        from embedsmith.export.static import STATIC

    if to == STATIC:
        if dtype != "fp32":
            raise ConfigError(f"--dtype is {dtype!r}, and a static model's table is stored as fp32.\nLeave it away.")
        _export_static(model, folder=folder, dim=dim, base_model=base_model, device=device)
        return
    if dim is not None:
        raise ConfigError(f"--dim is of a static model, and --to is {to}.\nLeave it away.")
    if to not in list(Format) or dtype not in list(Dtype):
        raise ConfigError(
            f"--to is {to!r}, --dtype {dtype!r}; they may be {', '.join(Format)} or static, and {' or '.join(Dtype)}."
        )
    files.check_output_folder(folder, option="FOLDER")
    parity = export(model, folder=folder, to=Format(to), dtype=Dtype(dtype), base_model=base_model, device=device)
    make_console().print(
        f"{folder}: cosines to {model} of {parity.num_texts} texts: smallest {parity.smallest:.6f}, "
        f"mean {parity.mean:.6f}",
        soft_wrap=True,
    )


def _export_static(model: str, *, folder: Path, dim: int | None, base_model: str | None, device: str) -> None:
    from embedsmith.export.static import export_static
    from embedsmith.support.display import encoding_progress

    console = make_console()
    with encoding_progress(console) as (start, advance):
        start("every token of the vocabulary")
        made = export_static(model, folder=folder, dim=dim, base_model=base_model, device=device, on_progress=advance)
    console.print(
        f"{folder}: {made.num_tokens:,} tokens of {made.dim} dimensions, which hold {100 * made.explained:.0f} % of "
        f"the variance; {made.size_bytes:,} bytes. sentence-transformers reads it as meant (smallest cosine "
        f"{made.smallest_cosine:.6f}).\nIt is another model: score it with embedsmith evaluate {folder}",
        soft_wrap=True,
    )
