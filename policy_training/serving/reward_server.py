"""Runs the server: its socket, its signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.verdicts import Verdicts
from regrade.policy_training.serving.application import create_app
from regrade.policy_training.serving.service import RewardService
from regrade.policy_training.serving.settings import ServerSettings

logger = logging.getLogger(__name__)
AFTER_THE_LAST_ANSWER = 10
"""Seconds in which clients may read the last responses, before their connections are cut."""
BACKLOG = 2048
"""Connections that wait to be accepted, at most."""
SPARE_FILES = 256
"""File descriptors for the sandboxes and the store, beside those of the connections."""


class RewardServer:
    """A reward that listens.

    with Scorer() as scorer, RewardServer(Verdicts(tasks, scorer, reward), ServerSettings(port=8077)) as server:
        print(server.url)
        server.run()
    """

    def __init__(self, verdicts: Verdicts, settings: ServerSettings, *, running: int) -> None:
        """
        Args:
            running: most answers that are judged at a time: about two per worker of the scorer, so that a worker does
                not wait for the reading of evidence.

        Raises:
            UserError: the address cannot be listened on, or there is no task.
        """
        if not verdicts.tasks:
            raise UserError("there is no task to serve: give a task file that has some")
        self.settings = settings
        self.service = RewardService(verdicts, settings, running=running)
        self._socket = _listening_socket(settings.host, settings.port)
        self._server = _GracefulServer(_configuration(self.service), self.service)

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Serve until SIGTERM or Ctrl-C: then running answers finish, and waiting ones get a 503. Or until `stop`."""
        with _enough_files(self.settings.connections):
            self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Stop as after SIGTERM. May be called from any thread."""
        self._server.should_exit = True

    @property
    def is_started(self) -> bool:
        """Does it answer requests?"""
        return self._server.started

    def __enter__(self) -> RewardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


class _GracefulServer(uvicorn.Server):
    """Drains the queue while the open requests get their responses."""

    def __init__(self, configuration: uvicorn.Config, service: RewardService) -> None:
        super().__init__(configuration)
        self._service = service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        counts = self._service.queue.counts
        logger.info("stopping: %d answers run, %d that wait are sent back", counts.running, counts.waiting)
        self._service.queue.refuse_new_jobs()
        draining = asyncio.create_task(self._service.queue.drain(self._service.settings.stop_seconds))
        for each in self.servers:
            each.close()
        if self._service.replies:  # uvicorn waits for responses, and closes WebSockets at once
            await asyncio.wait(list(self._service.replies), timeout=self._service.settings.stop_seconds)
        await super().shutdown(sockets)
        await draining

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A stop by a signal is a success, not an interruption that is raised again at the end."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


class _WebSocket(WebSocketsSansIOProtocol):
    """uvicorn (0.54) raises, and stops stopping, where a client closes its session in the same moment."""

    def shutdown(self) -> None:
        try:
            super().shutdown()
        except InvalidState:
            self.transport.close()


def _http_protocol(header_seconds: float) -> type[H11Protocol]:
    """uvicorn's, which waits forever for the header of a request: such connections would use up their number."""

    class Http(H11Protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch_header()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch_header()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop_timer()

        def _watch_header(self) -> None:
            if self.conn.their_state is not h11.IDLE:  # the header is complete
                self._stop_timer()
            elif self._timer is None:
                self._timer = self.loop.call_later(header_seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return Http


def _configuration(service: RewardService) -> uvicorn.Config:
    settings = service.settings
    return uvicorn.Config(
        create_app(service),
        lifespan="off",
        log_config=None,
        access_log=False,
        http=_http_protocol(settings.header_seconds),
        ws=_WebSocket,
        server_header=False,
        proxy_headers=False,
        ws_max_size=settings.body_bytes,
        backlog=BACKLOG,
        limit_concurrency=settings.connections,
        timeout_graceful_shutdown=round(settings.stop_seconds) + AFTER_THE_LAST_ANSWER,
    )


def _listening_socket(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)  # from now on a client waits, and is not refused
        except OSError:
            listening.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"the server cannot listen on {host}:{port}: {reason}; choose another address or port"
        ) from error
    return listening


@contextmanager
def _enough_files(connections: int) -> Iterator[None]:
    """Raise this process's own limit of open files, as far as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
