"""`/v1/embeddings` and `/v1/models`, as OpenAI defines them."""

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from embedsmith.serving.answers import answer_rows, to_base64
from embedsmith.serving.bodies import body_of
from embedsmith.serving.replies import COMPUTING, EmbeddingsReply, ModelReply, ModelsReply, errors
from embedsmith.serving.requests import EmbeddingsRequest
from embedsmith.serving.served_model import ServedModel
from embedsmith.serving.service import Service

_NO_LIMIT = 2**31
"""A model that takes any number of tokens says more than this."""


def make_openai_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    router = APIRouter(prefix="/v1", tags=["OpenAI"])

    @router.post(
        "/embeddings",
        response_model=EmbeddingsReply,
        responses=errors(*COMPUTING),
        openapi_extra=body_of(EmbeddingsRequest),
    )
    async def embeddings(request: Request) -> Response:
        """Embed texts."""
        asked = await service.read(request, EmbeddingsRequest)
        model = service.find(asked.model)
        embedded = await service.embed(
            request, model=model, question=asked.question(), dim=asked.dimensions, may_cut=asked.truncate is not False
        )
        usage = {"prompt_tokens": embedded.num_tokens, "total_tokens": embedded.num_tokens}
        rest = orjson.dumps({"model": model.name, "usage": usage})[1:]
        row = _base64_row if asked.encoding_format == "base64" else _float_row
        return answer_rows(embedded, row=row, before=b'{"object":"list","data":[', after=b"]," + rest)

    @router.get("/models", response_model=ModelsReply, responses=errors(401))
    async def models() -> Response:
        """The models that may be named in a request."""
        data = [_describe(model, service) for model in service.models.values()]
        return Response(orjson.dumps({"object": "list", "data": data}), media_type="application/json")

    @router.get("/models/{name:path}", response_model=ModelReply, responses=errors(401, 404))
    async def model(name: str) -> Response:
        """One of them."""
        return Response(orjson.dumps(_describe(service.find(name), service)), media_type="application/json")

    return router


def _float_row(index: int, row: np.ndarray) -> Any:
    return {"object": "embedding", "index": index, "embedding": row}


def _base64_row(index: int, row: np.ndarray) -> Any:
    return {"object": "embedding", "index": index, "embedding": to_base64(row)}


def _describe(model: ServedModel, service: Service) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": service.started_at,
        "owned_by": "embedsmith",
        "dimensions": model.dim,
        "max_tokens": model.max_length if model.max_length < _NO_LIMIT else None,
        "parent": model.parent,
    }
