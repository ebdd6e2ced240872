"""serve."""

from pathlib import Path
from typing import Annotated

import typer

from embedsmith.cli.app import BaseModel, Device, app, at_home, heavy_imports


@app.command("serve")
def serve_command(
    models: Annotated[
        list[str],
        typer.Argument(
            callback=at_home,
            metavar="MODEL...",
            help="As of evaluate; or NAME=MODEL, for clients to ask by another name. The first answers those that name "
            "none.",
        ),
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0: every one of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            callback=at_home,
            help="Holds the key that clients must show; default: the variable EMBEDSMITH_API_KEY, or no key.",
        ),
    ] = None,
    max_items: Annotated[int, typer.Option(min=1, help="Texts of one request.")] = 2048,
    max_request_tokens: Annotated[int, typer.Option(min=1, help="Tokens of one request.")] = 300_000,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Of one request.")] = 2_000_000,
    max_requests: Annotated[int, typer.Option(min=1, help="Requests inside at one time.")] = 512,
    max_queue_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a model that may wait.")] = 600_000,
    batch_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens computed at one time; default: 4,096 on a CPU, up to 16,384 on a GPU."),
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="What was accepted when the server is stopped may take so long.")
    ] = 60,
    with_base: Annotated[
        bool,
        typer.Option(
            "--with-base/--without-base",
            help="Serve the base of a run or adapter, too, as NAME:base, out of the same weights in memory.",
        ),
    ] = True,
    precision: Annotated[str, typer.Option(help="Of the weights: auto, bf16 or fp32.")] = "auto",
    base_model: BaseModel = None,
    device: Device = None,
) -> None:
    """Answer /v1/embeddings as OpenAI's API does, the texts of many clients computed together; see docs/serving.md."""
    with heavy_imports():
        from embedsmith.model.loading.devices import choose_precision
        from embedsmith.serving.limits import Limits
        from embedsmith.verbs.serve import serve

    serve(
        models,
        host=host,
        port=port,
        api_key_file=api_key_file,
        limits=Limits(
            max_items=max_items,
            max_request_tokens=max_request_tokens,
            max_body_bytes=max_body_bytes,
            max_requests=max_requests,
            max_queue_tokens=max_queue_tokens,
            batch_tokens=batch_tokens,
            drain_seconds=drain_seconds,
        ),
        with_base=with_base,
        base_model=base_model,
        precision=choose_precision(precision),
        device=device,
    )
