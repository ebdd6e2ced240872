"""search."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedsmith.cli.app import BaseModel, Device, Model, app, at_home, heavy_imports, make_console
from embedsmith.settings.choices import SearchKind, StoreKind
from embedsmith.support.errors import ConfigError

if TYPE_CHECKING:
    from embedsmith.records.found import Hit

_SHOWN_CHARACTERS = 160


def _of_recipes(value: str | None) -> None:
    """Callback of an option that this command had while it searched for recipes."""
    if value is not None:
        raise ConfigError(f"Recipes are searched for by another command:\n  embedsmith optimize --config {value}")


@app.command("search")
def search_command(
    model: Model,
    folder: Annotated[
        Path, typer.Argument(callback=at_home, help="Folder of vectors that `embedsmith encode --out FOLDER` made.")
    ],
    queries: Annotated[list[str] | None, typer.Argument(help="What is searched for; several texts.")] = None,
    queries_from: Annotated[
        str | None,
        typer.Option("--queries", callback=at_home, help="File of queries (.txt: one a line), behind those named."),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of the queries in that file; default: the one of a usual name.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many texts to find for each query.")] = 10,
    search: Annotated[
        SearchKind, typer.Option(help="exact, through LanceDB's index, or auto: exact up to a million vectors.")
    ] = SearchKind.AUTO,
    store: Annotated[
        StoreKind,
        typer.Option(
            help="lancedb (embedsmith[search]: a table beside the shards, made once), shards, or auto: the first where "
            "it is installed."
        ),
    ] = StoreKind.AUTO,
    recall: Annotated[
        bool, typer.Option("--recall", help="Search exactly too, and tell what share of that the index found.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each query, with whole texts.")] = False,
    prompt: Annotated[
        str | None,
        typer.Option(help="Template of the queries with {text}, or a known name; default: the model's own."),
    ] = None,
    instruction: Annotated[str | None, typer.Option(help="Fills {instruction} in the prompt.")] = None,
    config: Annotated[str | None, typer.Option(hidden=True, is_eager=True, callback=_of_recipes)] = None,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Find the texts nearest to queries, among vectors that encode made."""
    if recall and search is not SearchKind.INDEX:
        raise ConfigError("--recall compares an index with exact search.\nAsk for one: --search index.")
    if text_column and not queries_from:
        raise ConfigError("--text-column is that of a file of queries, and there is none.\nName it with --queries.")
    with heavy_imports():
        from embedsmith.data.corpora import survey_corpus
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.verbs.search import search as find
        from embedsmith.verbs.vector_maker import VectorOptions

    asked = list(queries or ())
    if queries_from:
        asked += [one.text for one in survey_corpus([queries_from], column=text_column).texts()]
    found = find(
        model,
        folder=folder,
        queries=asked,
        top_k=top_k,
        search=search,
        store=store,
        options=VectorOptions(
            prompt=prompt,
            instruction=instruction,
            base_model=base_model,
            precision=choose_precision(precision),
            device=device,
        ),
        measures_recall=recall,
    )
    if as_json:
        for query, hits in zip(asked, found.hits, strict=True):
            values = {"query": query, "how": found.how, "recall": found.recall, "hits": _as_json(hits)}
            print(json.dumps(values, ensure_ascii=False))
        return
    console = make_console()
    for query, hits in zip(asked, found.hits, strict=True):
        if len(asked) > 1:
            console.print(query, soft_wrap=True)
        for rank, hit in enumerate(hits, start=1):
            console.print(f"{rank:3}  {hit.score:.3f}  {_shown(hit)}", soft_wrap=True)
    told = "" if found.recall is None else f"; of these queries' {100 * found.recall:.1f} %"
    console.print(f"{found.how}{told}", soft_wrap=True)


def _as_json(hits: Sequence["Hit"]) -> list[dict[str, Any]]:
    return [
        {"rank": rank, "score": hit.score}
        | {name: value for name, value in vars(hit.place).items() if value is not None}
        for rank, hit in enumerate(hits, start=1)
    ]


def _shown(hit: "Hit") -> str:
    place = hit.place
    where = f"{place.file}:{place.row}" + (f", {place.id}" if place.id is not None else "")
    if place.text is None:
        return where
    text = " ".join(place.text.split())
    shown = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 4] + " ..."
    return f"{shown}  ({where})"
