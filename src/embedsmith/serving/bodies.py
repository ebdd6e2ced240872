"""Reading a request's body, no more than may be, in the time that it may take; waiting while its client is there."""

import asyncio
from typing import Any

from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from embedsmith.serving.batching import Batcher, Job
from embedsmith.serving.errors import ApiError, ClientGoneError
from embedsmith.serving.limits import Limits


async def read_body(request: Request, *, limits: Limits) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413, it is larger than may be; 415, it is no JSON; 408, it did not come in time.
        ClientGoneError: the client went away.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        named = f"it is {kind!r:.100}" if kind else "there is none"
        raise ApiError(415, f"Content-Type must be application/json, and {named}.", code="unsupported_media_type")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > limits.max_body_bytes:
        raise _too_large(f"{int(length):,}", limits)
    parts: list[bytes] = []
    num_bytes = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                num_bytes += len(part)
                if num_bytes > limits.max_body_bytes:
                    raise _too_large(f"{num_bytes:,} or more", limits)
                parts.append(part)
    except TimeoutError:
        message = f"The body did not come within {limits.body_seconds:g} seconds."
        raise ApiError(408, message, code="request_timeout", headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    return b"".join(parts)


def _too_large(num_bytes: str, limits: Limits) -> ApiError:
    message = f"The body has {num_bytes} bytes; it may have {limits.max_body_bytes:,}. Send fewer texts at one time."
    return ApiError(413, message, code="body_too_large")


async def wait_for(job: Job, *, batcher: Batcher, request: Request) -> None:
    """Wait until a job is answered; it leaves its place when its client goes away.

    Raises:
        ClientGoneError: the client went away.
    """
    gone = asyncio.ensure_future(_is_gone(request))
    try:
        both: set[asyncio.Future[Any]] = {job.answer, gone}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not job.answer.done():
            raise ClientGoneError
    finally:
        gone.cancel()
        if not job.answer.done():
            batcher.withdraw(job)


async def _is_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """For the OpenAPI document: the body that a route reads by `read_body`."""
    schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
