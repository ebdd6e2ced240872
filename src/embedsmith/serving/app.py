"""The application: routes, errors and the OpenAPI document, behind the gate."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from embedsmith.serving.errors import ApiError, ClientGoneError, answer_error
from embedsmith.serving.gate import OPEN_PATHS, Gate
from embedsmith.serving.openai_routes import make_openai_routes
from embedsmith.serving.page_routes import make_page_routes
from embedsmith.serving.replies import Status, errors
from embedsmith.serving.requests import EmbeddingsRequest, EmbedRequest, SimilarityRequest, TokensRequest
from embedsmith.serving.service import Service
from embedsmith.serving.tei_routes import make_tei_routes

_CLIENT_GONE = 499  # as nginx calls it; nobody sees it but the figures
_BODIES = (EmbeddingsRequest, EmbedRequest, SimilarityRequest, TokensRequest)
_REFERENCE = "#/components/schemas/{model}"


def make_app(service: Service, *, api_key: str | None = None) -> Gate:
    """A server's application.

    Args:
        service: what computes.
        api_key: what clients must show; None: nothing.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    # Its pages to try the API out would be fetched from elsewhere.
    app = FastAPI(title="embedsmith", version=version("embedsmith"), lifespan=lifespan, docs_url=None, redoc_url=None)
    gate = Gate(app, limits=service.limits, api_key=api_key, metrics=service.metrics)
    app.include_router(make_openai_routes(service))
    app.include_router(make_tei_routes(service))
    app.include_router(make_page_routes(service))
    _add_status(app, gate)
    _add_errors(app)
    _complete_document(app)
    return gate


def _add_status(app: FastAPI, gate: Gate) -> None:
    @app.get("/health", response_model=Status, tags=["status"])
    async def health() -> Response:
        """Whether the server lives."""
        return _status("ok")

    @app.get("/ready", response_model=Status, tags=["status"], responses={503: {"model": Status}})
    async def ready() -> Response:
        """Whether it takes requests: all models are loaded when it first answers, and 503 when it is stopping."""
        return _status("stopping", code=503) if gate.is_draining else _status("ready")

    @app.get("/metrics", response_class=Response, tags=["status"], responses={200: _METRICS, **errors(401)})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(gate.metrics.render(), media_type=_METRICS_TYPE)


_METRICS_TYPE = "text/plain; version=0.0.4"
_METRICS: dict[str, Any] = {"content": {"text/plain": {"schema": {"type": "string"}}}}


def _status(status: str, *, code: int = 200) -> Response:
    return Response(orjson.dumps({"status": status}), status_code=code, media_type="application/json")


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(request: Request, error: ApiError) -> Response:
        return answer_error(error, path=request.url.path)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        message = {
            404: f"There is nothing at {request.url.path:.200}; /openapi.json says what there is.",
            405: f"{request.url.path:.200} does not take {request.method}.",
        }.get(error.status_code, str(error.detail))
        return answer_error(ApiError(error.status_code, message, headers=error.headers), path=request.url.path)

    @app.exception_handler(ClientGoneError)
    async def gone(request: Request, error: ClientGoneError) -> Response:
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        message = "The server failed; its log says more."
        return answer_error(ApiError(500, message, code="server_error"), path=request.url.path)


def _complete_document(app: FastAPI) -> None:
    """Add what FastAPI cannot see: bodies, which are read by us, and the key, which the gate asks for."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        _, schemas = models_json_schema([(body, "validation") for body in _BODIES], ref_template=_REFERENCE)
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas["$defs"])
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for operation in methods.values():
                operation["security"] = [] if path in OPEN_PATHS else [{}, {"key": []}]
        return document

    app.openapi = openapi
