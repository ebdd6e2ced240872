"""`/embed` and `/similarity`, as text-embeddings-inference answers them."""

from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from embedsmith.serving.answers import answer_rows
from embedsmith.serving.bodies import body_of
from embedsmith.serving.replies import COMPUTING, TeiErrorReply, errors
from embedsmith.serving.requests import EmbedRequest, SimilarityRequest
from embedsmith.serving.service import Service


def make_tei_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    router = APIRouter(tags=["text-embeddings-inference"], responses=errors(*COMPUTING, model=TeiErrorReply))

    @router.post("/embed", response_model=list[list[float]], openapi_extra=body_of(EmbedRequest))
    async def embed(request: Request) -> Response:
        """Embed texts; the answer is a list of embeddings, for one text too."""
        asked = await service.read(request, EmbedRequest)
        embedded = await service.embed(
            request,
            model=service.find(asked.model),
            question=asked.question(),
            dim=asked.dimensions,
            may_cut=asked.truncate is not False,
        )
        return answer_rows(embedded, row=_row)

    @router.post("/similarity", response_model=list[float], openapi_extra=body_of(SimilarityRequest))
    async def similarity(request: Request) -> Response:
        """The cosine of one sentence and each of some others."""
        asked = await service.read(request, SimilarityRequest)
        may_cut = asked.parameters is None or asked.parameters.truncate is not False
        embedded = await service.embed(
            request, model=service.find(asked.model), question=asked.question(), dim=None, may_cut=may_cut
        )
        cosines = embedded.rows[1:] @ embedded.rows[0]
        text = orjson.dumps(cosines, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(text, media_type="application/json", headers=embedded.headers)

    return router


def _row(_: int, row: np.ndarray) -> Any:
    return row
