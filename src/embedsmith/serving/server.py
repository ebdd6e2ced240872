"""The process: a socket, uvicorn, and an end that loses nothing.

Told to stop (SIGTERM, Ctrl-C), the server takes no more requests (503, `/ready` too), answers those it has accepted,
and goes. Told twice, it goes at once. Clients that do not read their answers, or send their requests a byte at a time,
are cut off after a while.
"""

import asyncio
import logging
import signal
import socket
from time import monotonic
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from embedsmith.serving.gate import Gate
from embedsmith.support.errors import ConfigError

log = logging.getLogger(__name__)

_UNREAD_SECONDS = 60
_HEAD_SECONDS = 30
_LAST_SECONDS = 10
"""For answers to leave when all are written."""


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen yet, so that a taken port shows before models are loaded.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        own = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _no_address(host, port, error) from None
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it
        own.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_SECONDS * 1000)
    try:
        own.bind(address)
    except OSError as error:
        own.close()
        raise _no_address(host, port, error) from None
    return own


def _no_address(host: str, port: int, error: Exception) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(f"Nothing can be served at {host}:{port}: {reason}.\nChoose --host and --port.")


class Server(uvicorn.Server):
    """uvicorn, with an end as said above.

    Args:
        gate: the application.
    """

    should_exit: bool

    def __init__(self, gate: Gate) -> None:
        super().__init__(
            uvicorn.Config(
                gate,
                http=_Connection,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                limit_concurrency=gate.limits.max_connections,
                timeout_graceful_shutdown=_LAST_SECONDS,
            )
        )
        self.gate = gate
        self._drains_until = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn calls it; the address is said when it can be asked."""
        await super().startup(sockets)
        for own in sockets or []:
            address, port, *_ = own.getsockname()
            shown = f"[{address}]" if ":" in address else address
            log.info("http://%s:%s/ is a page to try it out", shown, port)
            log.info("http://%s:%s/v1/embeddings, until Ctrl-C", shown, port)

    def stop(self) -> None:
        """Take no more requests, and end when those inside are answered."""
        if not self.gate.is_draining:
            self._drains_until = monotonic() + self.gate.limits.drain_seconds
            self.gate.is_draining = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn calls it; it is called between two instructions of the event loop."""
        if self.gate.is_draining:
            # A batch cannot be stopped, and the interpreter would wait for its thread.
            signal.signal(sig, signal.SIG_DFL)
            signal.raise_signal(sig)
        self.stop()  # before it is said: who reads that may send a second one
        log.info("%s: answering %d requests, then stopping", signal.Signals(sig).name, self.gate.num_inside)

    async def on_tick(self, counter: int) -> bool:
        """As uvicorn calls it, ten times a second."""
        if self.gate.is_draining and not self.should_exit:
            is_late = monotonic() > self._drains_until
            if is_late and self.gate.num_inside:
                seconds = self.gate.limits.drain_seconds
                log.warning("%d requests were not answered in %g seconds: given up", self.gate.num_inside, seconds)
                self.gate.give_up()
            self.should_exit = is_late or not self.gate.num_inside
        return await super().on_tick(counter)


class _Connection(H11Protocol):
    """A connection whose requests' heads must come in time; uvicorn waits for them without end."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """As asyncio calls it."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
