"""export."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedsmith.cli.app import BaseModel, Model, app, at_home, heavy_imports, make_console
from embedsmith.support import files
from embedsmith.support.errors import ConfigError

if TYPE_CHECKING:
    from embedsmith.export.parity import Parity


@app.command("export")
def export_command(
    model: Model,
    folder: Annotated[Path, typer.Argument(callback=at_home, help="Folder to make.")],
    to: Annotated[
        str,
        typer.Option(
            help="merged (transformers), peft (the adapter alone), sentence-transformers, onnx, openvino, gguf "
            "(llama.cpp) or static (model2vec)."
        ),
    ],
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the weights stored: fp32; bf16 in merged and sentence-transformers; fp16 or int8 in graphs; "
            "fp16, q8_0 or q4_k_m in gguf."
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
        from embedsmith.export.gguf_files import GGUF, GGUF_DTYPES
        from embedsmith.export.peft_files import PEFT, export_peft
        from embedsmith.export.static import STATIC
        from embedsmith.model.loading.configuration import check_there

    check_there(model)  # before any package that is not installed is named
    if to == STATIC:
        if dtype != "fp32":
            raise ConfigError(f"--dtype is {dtype!r}, and a static model's table is stored as fp32.\nLeave it away.")
        _export_static(model, folder=folder, dim=dim, base_model=base_model, device=device)
        return
    if dim is not None:
        raise ConfigError(f"--dim is of a static model, and --to is {to}.\nLeave it away.")
    if to == GGUF:
        _export_gguf(model, folder=folder, dtype=dtype, base_model=base_model, device=device)
        return
    if to == PEFT:
        if dtype != "fp32":
            raise ConfigError(f"--dtype is {dtype!r}, and an adapter's weights are stored as fp32.\nLeave it away.")
        parity = export_peft(model, folder=folder, base_model=base_model, device=device)
        _print_parity(parity, folder=folder, model=model)
        return
    if to not in list(Format) or dtype not in list(Dtype):
        raise ConfigError(
            f"--to is {to!r}, --dtype {dtype!r}; they may be {', '.join((*Format, PEFT, GGUF))} or {STATIC}, and "
            f"{', '.join(Dtype)} or, in gguf, {', '.join(GGUF_DTYPES)}."
        )
    files.check_output_folder(folder, option="FOLDER")
    parity = export(model, folder=folder, to=Format(to), dtype=Dtype(dtype), base_model=base_model, device=device)
    _print_parity(parity, folder=folder, model=model)


def _print_parity(parity: "Parity", *, folder: Path, model: str) -> None:
    make_console().print(
        f"{folder}: cosines to {model} of {parity.num_texts} texts: smallest {parity.smallest:.6f}, "
        f"mean {parity.mean:.6f}",
        soft_wrap=True,
    )


def _export_gguf(model: str, *, folder: Path, dtype: str, base_model: str | None, device: str) -> None:
    from embedsmith.export.gguf_files import GGUF_FILE, export_gguf

    files.check_output_folder(folder, option="FOLDER")
    made = export_gguf(model, folder=folder, dtype=dtype, base_model=base_model, device=device)
    lines = [
        f"{folder / GGUF_FILE}: {made.size_bytes:,} bytes; llama.cpp's cosines to {model} of {made.parity.num_texts} "
        f"texts: smallest {made.parity.smallest:.6f}, mean {made.parity.mean:.6f}.",
        f"llama.cpp cuts no text in front of the end token: give it none of more than {made.max_length} tokens.",
    ]
    lines += [
        f"It puts no prompt: put it around each {name}, as this JSON text spells it: {json.dumps(text)}"
        for name, text in made.prompts.items()
    ]
    if made.unicode_form:
        lines.append(f"It does not bring texts into Unicode's form {made.unicode_form}: give them in it.")
    make_console().print("\n".join(lines), soft_wrap=True, markup=False)


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
