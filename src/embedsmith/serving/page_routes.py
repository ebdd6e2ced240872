"""The playground: its files, and the one route that it alone needs."""

from dataclasses import asdict
from pathlib import Path

import orjson
from fastapi import APIRouter, Request, Response

from embedsmith.serving.bodies import body_of
from embedsmith.serving.errors import ApiError
from embedsmith.serving.page_files import PAGE_PATHS
from embedsmith.serving.replies import COMPUTING, TokensReply, errors
from embedsmith.serving.requests import TokensRequest
from embedsmith.serving.service import Service

_MOST_CHARACTERS = 20_000  # each token is named on the thread that cuts everybody's texts
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Whatever texts hold, the page asks nobody but this server, and runs nothing but its own files.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def make_page_routes(service: Service) -> APIRouter:
    """The routes of a service."""
    router = APIRouter(tags=["playground"])
    for path, file in PAGE_PATHS.items():
        _add_file(router, path, file)

    @router.post(
        "/tokens", response_model=TokensReply, responses=errors(*COMPUTING), openapi_extra=body_of(TokensRequest)
    )
    async def tokens(request: Request) -> Response:
        """How texts become tokens: each one's role, and whether the vector is made of its state."""
        asked = await service.read(request, TokensRequest)
        num_characters = sum(map(len, asked.input))
        if num_characters > _MOST_CHARACTERS:
            message = f"The texts have {num_characters:,} characters; here they may have {_MOST_CHARACTERS:,}."
            raise ApiError(413, message, code="too_many_characters", param="input")
        model = service.find(asked.model)
        prompt, texts = await service.show_tokens(model, asked.question())
        reply = {
            "model": model.name,
            "prompt": prompt,
            "pooling": model.pooling,
            "texts": [asdict(text) for text in texts],
        }
        return Response(orjson.dumps(reply), media_type="application/json")

    return router


def _add_file(router: APIRouter, path: str, file: Path) -> None:
    content = file.read_bytes()

    @router.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=_KINDS[file.suffix], headers=_HEADERS)
