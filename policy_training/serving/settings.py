"""The settings of a server. Constructing them with a value out of range raises UserError."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, fields

from regrade.datasets.errors import UserError

LONGEST = 86_400.0
"""Seconds: a day."""
MOST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Where a server listens, and its limits.

    Raises:
        UserError: a number is out of range, or the server would be open to the network without a token.
    """

    host: str = "127.0.0.1"
    """Address to listen on. Beyond this machine (such as 0.0.0.0), a token is required."""
    port: int = 8077
    """0: any free port."""
    token: str | None = None
    """Every request but `/health` and the API's description must carry it: `Authorization: Bearer TOKEN`."""
    queue: int = 4096
    """Most answers that wait."""
    answers: int = 1024
    """Most answers in one request."""
    body_megabytes: float = 64.0
    """Largest body of a request."""
    header_seconds: float = 30.0
    """Longest time in which the header of a request must arrive; then the connection is closed."""
    body_seconds: float = 30.0
    """Longest time in which the body of a request must arrive."""
    deadline: float = 3600.0
    """Longest time until the response, in seconds. A request may ask for less."""
    linger: float = 60.0
    """Seconds for which an answer keeps its place in the queue after its client left."""
    remembered: int = 20_000
    """Most verdicts in memory. All others are read from the stored evidence."""
    connections: int = 4096
    """Most connections at a time; further ones get a 503."""
    stop_seconds: float = 60.0
    """Longest time for which the running answers may go on after SIGTERM."""

    def __post_init__(self) -> None:
        counts = {"queue": 1, "answers": 1, "remembered": 0, "connections": 1}
        for name, least in counts.items():
            _check_range(name, getattr(self, name), least, MOST)
        for name in ("body_megabytes", "header_seconds", "body_seconds", "deadline"):
            _check_range(name, getattr(self, name), 0.001, LONGEST)
        for name in ("linger", "stop_seconds"):
            _check_range(name, getattr(self, name), 0, LONGEST)
        _check_range("port", self.port, 0, 65_535)
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and len(self.token) >= 16):
            raise UserError(
                "the token of the server is no token: give at least 16 printable ASCII characters in one line, such as "
                "those of `openssl rand -hex 32`"
            )
        if self.token is None and not is_loopback(self.host):
            raise UserError(
                f"the server would listen on {self.host!r}, beyond this machine, without a token: give a token, or "
                "listen on 127.0.0.1"
            )

    @property
    def body_bytes(self) -> int:
        """The limit of a body, in bytes."""
        return int(self.body_megabytes * (1 << 20))


def is_loopback(host: str) -> bool:
    """Can only this machine reach the address?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_range(name: str, value: object, least: float, most: float) -> None:
    is_whole = {item.name: item.type for item in fields(ServerSettings)}[name] == "int"
    is_number = isinstance(value, int if is_whole else int | float) and not isinstance(value, bool)
    if not (is_number and least <= value <= most):  # type: ignore[operator]
        kind = "a whole number" if is_whole else "a number"
        raise UserError(f"ServerSettings: {name} is {value!r}; give {kind} from {least:g} to {most:g}")
