"""MODELs -> a server that answers until it is told to stop."""

import logging
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from embedsmith.model.embedding_model import load_embedding_model
from embedsmith.settings.choices import Precision
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from embedsmith.serving.limits import Limits
    from embedsmith.serving.served_model import ServedModel

log = logging.getLogger(__name__)

KEY_VARIABLE = "EMBEDSMITH_API_KEY"
_PACKAGES = {
    "fastapi": "fastapi",
    "orjson": "orjson",
    "prometheus_client": "prometheus-client",
    "uvicorn": "uvicorn",
}
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    models: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: Path | None = None,
    limits: "Limits | None" = None,
    with_base: bool = True,
    base_model: str | None = None,
    precision: Precision = Precision.AUTO,
    device: str | None = None,
) -> None:
    """Serve models until SIGTERM or Ctrl-C; what was accepted by then is answered first.

    Args:
        models: MODEL, or NAME=MODEL for clients to ask by another name; the first answers those that name none.
        host: address to listen at; the default can be reached from this machine alone.
        port: 0: any that is free, which is printed.
        api_key_file: holds the key that clients must show; None: the variable EMBEDSMITH_API_KEY, or nothing is asked.
        limits: how much is taken at one time; None: as they are by default.
        with_base: serve the base of a run or adapter, too, as NAME:base, out of the same weights in memory.
        base_model: where the base of a run or adapter lies, with one MODEL.
        precision: of the weights.
        device: None: CUDA where there is one, else the CPU.

    Raises:
        MissingExtraError: the extra `serve` is not installed.
        ConfigError: two models of one name, an empty key, or an address that cannot be had.
        ModelError: as `load_embedding_model`.
    """
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtraError(package, extra="serve", needed_for="Serving")
    from embedsmith.serving.app import make_app
    from embedsmith.serving.limits import Limits
    from embedsmith.serving.metrics import Metrics
    from embedsmith.serving.served_model import serve_model, serve_with_base
    from embedsmith.serving.server import Server, open_socket
    from embedsmith.serving.service import Service

    named = name_models(models)
    if base_model is not None and len(named) > 1:
        raise ConfigError("--base-model belongs to one MODEL, and there are several.\nServe that one alone.")
    key = read_key(api_key_file)
    with open_socket(host, port) as own:
        loaded = []
        for name, model in named.items():
            embedder = load_embedding_model(model, base_model=base_model, precision=precision, device=device)
            loaded += serve_with_base(embedder, name=name) if with_base else [serve_model(embedder, name=name)]
        _check_names(loaded)
        service = Service(loaded, limits=limits or Limits(), metrics=Metrics())
        service.warm_up()
        for one in loaded:
            log.info("%s: %d dimensions, %s tokens per text", one.name, one.dim, f"{one.max_length:,}")
        if host not in _LOOPBACK and key is None:
            log.warning("Everyone who reaches %s may use this server. Set %s to ask for a key.", host, KEY_VARIABLE)
        Server(make_app(service, api_key=key)).run(sockets=[own])


def _check_names(loaded: "Sequence[ServedModel]") -> None:
    """Raise ConfigError when a base has the name of a MODEL."""
    names = [one.name for one in loaded]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"Two models are called {twice[0]!r}: one is the base of another.\nGive NAME=MODEL, or --without-base."
        )


def name_models(models: Sequence[str]) -> dict[str, str]:
    """MODEL or NAME=MODEL -> name: MODEL, in order.

    Raises:
        ConfigError: two have one name.
    """
    named: dict[str, str] = {}
    for argument in models:
        match = None if Path(argument).exists() else _NAMED.fullmatch(argument)
        name, model = match.groups() if match else (argument, argument)
        if name in named:
            raise ConfigError(f"Two models are called {name!r}.\nGive one of them another name: NAME=MODEL.")
        named[name] = files.expand_home(model)
    return named


def read_key(path: Path | None) -> str | None:
    """The key of a file, else of the variable; None: there is neither.

    Raises:
        ConfigError: the file cannot be read, or the key is empty, or has characters that no header can have.
    """
    if path is None:
        key, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
    else:
        try:
            key, where = files.read_text(path), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"The key in {path} cannot be read: {error}.") from None
    if key is None:
        return None
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"The API key of {where} must be of printable ASCII characters without blanks, one at least.")
    return key
