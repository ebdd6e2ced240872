"""The gate before the application: who may come in, how many at one time, and what is left when they go.

    no key, or another           401
    the server is stopping       503
    as many as may are inside    429

All of it is known from a request's head, so nothing of a body is read for those who are refused. A body that nobody
wants is thrown away for a moment while the answer goes out: a client that is still sending would not see it otherwise.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import sha256
from time import monotonic
from typing import Any

from embedsmith.serving.errors import ApiError, answer_error
from embedsmith.serving.limits import Limits
from embedsmith.serving.metrics import Metrics
from embedsmith.serving.page_files import PAGE_PATHS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/health", "/ready", "/openapi.json", *PAGE_PATHS})
"""Answered without a key."""
_LINGER_SECONDS = 2.0


class Gate:
    """An ASGI application around another one.

    Args:
        app: what is behind it.
        limits: how many may be inside.
        api_key: what clients must show; None: nothing.
        metrics: what is counted.

    Attributes:
        is_draining: whether the server is stopping: what is inside goes on, nothing else comes in.
    """

    def __init__(self, app: Application, *, limits: Limits, api_key: str | None, metrics: Metrics) -> None:
        self.app = app
        self.limits = limits
        self.metrics = metrics
        self.is_draining = False
        self._inside: set[asyncio.Task[Any]] = set()
        self._has_given_up = False
        self._key = None if api_key is None else _digest(api_key.encode())

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """See above."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        started = monotonic()
        try:
            await self._let_through(scope, exchange)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count_request(route=route, status=exchange.status, seconds=monotonic() - started)

    async def _let_through(self, scope: MutableMapping[str, Any], exchange: "_Exchange") -> None:
        computes = scope["method"] == "POST"
        try:
            self._check_key(scope)
            if computes:
                self._check_room()
        except ApiError as error:
            await answer_error(error, path=scope["path"])(scope, exchange.receive, exchange.send)
            return
        task = asyncio.current_task()
        assert task is not None, "an event loop runs it"
        if computes:
            self._inside.add(task)
            self.metrics.inside.set(self.num_inside)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not self._has_given_up or exchange.status:
                raise
            message = "The server stopped before this was answered. Ask another one, or later."
            await answer_error(_stopping(message), path=scope["path"])(scope, exchange.receive, exchange.send)
        finally:
            self._inside.discard(task)
            self.metrics.inside.set(self.num_inside)

    @property
    def num_inside(self) -> int:
        """Requests that compute, inside at this time."""
        return len(self._inside)

    def give_up(self) -> None:
        """Answer none of those inside, and tell them."""
        self._has_given_up = True
        for task in self._inside:
            task.cancel()

    def _check_key(self, scope: MutableMapping[str, Any]) -> None:
        if self._key is None or scope["path"] in OPEN_PATHS:
            return
        given = _header(scope, b"authorization") or b""
        kind, _, key = given.partition(b" ")
        # Digests are equally long, so neither the time nor the comparison tells anything of the key.
        if not hmac.compare_digest(_digest(key.strip()), self._key) or kind.lower() != b"bearer":
            what = "no API key" if not given else "another API key than the server's"
            raise ApiError(
                401,
                f"The request has {what}. Send it as: Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_room(self) -> None:
        if self.is_draining:
            raise _stopping("The server is stopping. Ask another one, or later.")
        if self.num_inside >= self.limits.max_requests:
            message = f"{self.num_inside} requests are being answered, as many as may be at one time. Try again later."
            raise ApiError(429, message, code="rate_limit_exceeded", headers={"Retry-After": "1"})


def _stopping(message: str) -> ApiError:
    return ApiError(503, message, code="stopping", headers={"Retry-After": "5", "Connection": "close"})


class _Exchange:
    """A request and its answer, as they go through: whether the body was read, which status was sent."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.status = 0
        has_length = (_header(scope, b"content-length") or b"0") != b"0"
        self._body_is_left = has_length or _header(scope, b"transfer-encoding") is not None

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_is_left = False
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._body_is_left:
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif self._body_is_left and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._throw_away()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _throw_away(self) -> None:
        try:
            async with asyncio.timeout(_LINGER_SECONDS):
                while self._body_is_left:
                    await self.receive()
        except TimeoutError:
            pass


def _header(scope: MutableMapping[str, Any], name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
