"""What a request can do wrong, with its HTTP status, in the words of the API that it was asked by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.responses import Response

TEI_PATHS = ("/embed", "/similarity")
"""Answered as text-embeddings-inference answers; all others as OpenAI does."""
_TEI_KINDS = {
    401: "Unauthorized",
    404: "NotFound",
    413: "Validation",
    422: "Validation",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
}
_OPENAI_KINDS = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}


@dataclass
class ApiError(Exception):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        message: what is wrong, the value met, what to do.
        code: one word for programs.
        param: the field that is at fault.
        headers: of the response, such as Retry-After.
    """

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] | None = None


def answer_error(error: ApiError, *, path: str) -> Response:
    """The response that says it."""
    body: dict[str, Any]
    if path in TEI_PATHS:
        body = {"error": error.message, "error_type": _TEI_KINDS.get(error.status, "Validation")}
    else:
        kind = _OPENAI_KINDS.get(error.status, "invalid_request_error")
        body = {"error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}}
    return Response(orjson.dumps(body), status_code=error.status, headers=error.headers, media_type="application/json")


class ClientGoneError(Exception):
    """Nobody is there to be answered."""
