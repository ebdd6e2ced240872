"""encode."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedsmith.cli.app import PROMPT_HELP, BaseModel, Device, Model, app, at_home, heavy_imports, make_console
from embedsmith.settings.choices import EngineKind, Side, StoredPrecision
from embedsmith.support import files
from embedsmith.support.errors import ConfigError

if TYPE_CHECKING:
    from embedsmith.verbs.vector_maker import VectorOptions

_SUFFIX = ".npy"


def _output(param: typer.CallbackParam, value: Path) -> Path:
    """Callback of --out: a file of vectors or a folder of shards, refused at once where that cannot be written."""
    path: Path = at_home(value)
    if path.suffix == _SUFFIX:
        files.check_output(path, option=param.opts[0], suffix=_SUFFIX)
    else:
        files.check_output_folder(path, option=param.opts[0])
    return path


@app.command("encode")
def encode_command(
    model: Model,
    sources: Annotated[
        list[str],
        typer.Argument(
            callback=at_home,
            help="Texts: files (.txt: one a line), globs, or folders in BEIR's layout; for a folder hub datasets, too "
            "(owner/name, embedsmith[hub]).",
        ),
    ],
    out: Annotated[
        Path, typer.Option(callback=_output, help="A file of all vectors (.npy), or a folder for shards of them.")
    ],
    text_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the text; default: `text`, for a folder the one of a usual name. A `title` goes before "
            "a `text`."
        ),
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of ids that a folder keeps; default: file and row alone.")
    ] = None,
    shard_rows: Annotated[
        int | None, typer.Option(min=1, help="Vectors in each file of a folder; default: 16384.")
    ] = None,
    keep_text: Annotated[
        bool | None,
        typer.Option(
            "--keep-text/--no-keep-text",
            help="Whether a folder holds the texts beside their vectors; default: it does.",
        ),
    ] = None,
    side: Annotated[Side, typer.Option(help="Whether the texts are documents or queries.")] = Side.DOCUMENT,
    prompt: Annotated[str | None, typer.Option(help=PROMPT_HELP)] = None,
    instruction: Annotated[str | None, typer.Option(help="Fills {instruction} in the prompt.")] = None,
    dim: Annotated[int | None, typer.Option(help="Keep the first DIM dimensions.")] = None,
    vector_precision: Annotated[
        StoredPrecision, typer.Option(help="Of the vectors: float32, float16, int8, uint8, binary or ubinary.")
    ] = StoredPrecision.FLOAT32,
    ranges: Annotated[
        Path | None,
        typer.Option(callback=at_home, help="Ranges of int8 and uint8, as this command wrote them beside others."),
    ] = None,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            callback=at_home,
            help="Files of texts to take the ranges of, several behind one --calibration; default: these texts, of a "
            "folder those of its first shard.",
        ),
    ] = None,
    engine: Annotated[
        EngineKind,
        typer.Option(help="Of a folder: local, or ray (embedsmith[ray]): a Ray cluster; the same files."),
    ] = EngineKind.LOCAL,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of Ray; default: one for each GPU, or else each machine.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Write the vectors of texts, in float32, float16, 8 bits or one bit a dimension."""
    with heavy_imports():
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.verbs.vector_maker import VectorOptions

    options = VectorOptions(
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
    )
    of_folders = {
        "--id-column": id_column,
        "--shard-rows": shard_rows,
        "--keep-text": keep_text is not None,
        "--engine": engine is not EngineKind.LOCAL,
        "--workers": workers,
    }
    if out.suffix != _SUFFIX:
        _encode_shards(
            model,
            sources=sources,
            out=out,
            text_column=text_column,
            id_column=id_column,
            shard_rows=shard_rows,
            keep_text=keep_text is not False,
            options=options,
            engine=engine,
            num_workers=workers,
        )
    elif option := next((name for name, is_given in of_folders.items() if is_given), None):
        raise ConfigError(f"{option} is for a folder, and --out is the file {out}.\nLeave it away, or name a folder.")
    else:
        _encode_file(model, sources=sources, out=out, text_column=text_column, options=options)


def _encode_file(
    model: str, *, sources: list[str], out: Path, text_column: str | None, options: "VectorOptions"
) -> None:
    from embedsmith.data.hub import is_hub_id
    from embedsmith.verbs.encode import encode, ranges_path

    if dataset := next((source for source in sources if is_hub_id(source)), None):
        raise ConfigError(
            f"{dataset} is no file here, and hub datasets are embedded into a folder.\nCheck the spelling, or give a "
            f"folder as --out, not the file {out}."
        )
    if options.in_steps and options.ranges is None:
        files.check_output(ranges_path(out), option="--out", holds=("minimum", "maximum"))
    console = make_console()
    written = encode(model, sources=sources, out=out, column=text_column or "text", options=options, console=console)
    console.print(
        f"{out}: {written.shape[0]:,} vectors of {written.dim} dimensions, {options.vector_precision}, "
        f"{written.size_bytes:,} bytes" + (f"; {written.num_cut:,} texts were cut" if written.num_cut else ""),
        soft_wrap=True,
    )
    if written.ranges is not None:
        console.print(f"ranges: {written.ranges}", soft_wrap=True)


def _encode_shards(
    model: str,
    *,
    sources: list[str],
    out: Path,
    text_column: str | None,
    id_column: str | None,
    shard_rows: int | None,
    keep_text: bool,
    options: "VectorOptions",
    engine: EngineKind,
    num_workers: int | None,
) -> None:
    from embedsmith.verbs.encode_corpus import SHARD_ROWS, encode_corpus
    from embedsmith.verbs.vector_manifest import MANIFEST_FILE

    console = make_console()
    written = encode_corpus(
        model,
        sources=sources,
        out=out,
        column=text_column,
        id_column=id_column,
        shard_rows=shard_rows or SHARD_ROWS,
        keep_text=keep_text,
        options=options,
        engine=engine,
        num_workers=num_workers,
        console=console,
    )
    notes = [
        f"{num:,} {what}"
        for num, what in ((written.num_empty, "empty texts were left out"), (written.num_cut, "texts were cut"))
        if num
    ]
    console.print(
        f"{out / MANIFEST_FILE}: {written.num_texts:,} vectors of {written.dim} dimensions, "
        f"{options.vector_precision}, in {written.num_shards:,} shards, {written.size_bytes:,} bytes"
        + "".join(f"; {note}" for note in notes),
        soft_wrap=True,
    )
