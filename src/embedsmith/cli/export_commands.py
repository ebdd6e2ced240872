"""export."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import BaseModel, Model, app, at_home, make_console
from embedsmith.settings.config import Precision
from embedsmith.support import files
from embedsmith.support.errors import ConfigError


@app.command("export")
def export_command(
    model: Model,
    folder: Annotated[Path, typer.Argument(callback=at_home, help="Folder to make.")],
    to: Annotated[str, typer.Option(help="merged (transformers) or sentence-transformers.")],
    dtype: Annotated[str, typer.Option(help="Of the weights stored: fp32 or bf16.")] = "fp32",
    base_model: BaseModel = None,
    device: Annotated[
        str, typer.Option(help="Where model and folder are compared, in float32 and one after the other.")
    ] = "cpu",
) -> None:
    """Write a folder that other tools load; kept only if it embeds as the model does."""
    from embedsmith.export.folders import Format, export

    if to not in list(Format) or dtype not in ("fp32", "bf16"):
        raise ConfigError(f"--to is {to!r}, --dtype {dtype!r}; they may be {' or '.join(Format)}, and fp32 or bf16.")
    files.check_output_folder(folder, option="FOLDER")
    smallest = export(model, folder=folder, to=Format(to), dtype=Precision(dtype), base_model=base_model, device=device)
    make_console().print(f"{folder}: smallest cosine to {model} {smallest:.6f}", soft_wrap=True)
