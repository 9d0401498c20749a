"""Messages between the two sides of a split run: JSON behind its length, in one of a few forms."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import UncrossableError

LARGEST_MESSAGE = 64 << 20
FORMS: tuple[dict[str, type], ...] = (
    {"ask": str, "arguments": list, "nodes": list},
    {"value": object, "raised": bool, "nodes": list, "changes": list},
    {"uncrossable": str},
)
"""What messages hold: a request, an answer, and why there is none."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Raises UncrossableError where the other side is gone."""
    data = json.dumps(message).encode()
    try:
        connection.sendall(struct.pack("!I", len(data)) + data)
    except OSError as error:
        raise UncrossableError(f"the other process is gone: {error}") from None


def receive(connection: socket.socket) -> dict[str, Any]:
    """The next message. Raises UncrossableError where none comes."""
    (size,) = struct.unpack("!I", _read(connection, 4))
    if size > LARGEST_MESSAGE:
        raise UncrossableError(f"a message of {size} bytes")
    try:
        message = json.loads(_read(connection, size))
    except (ValueError, RecursionError):
        raise UncrossableError("what came is no message") from None
    if isinstance(message, dict):
        for form in FORMS:
            if message.keys() == form.keys() and all(isinstance(message[name], form[name]) for name in form):
                return message
    raise UncrossableError("what came is no message")


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            block = connection.recv(min(size - len(data), 1 << 20))
        except OSError as error:
            raise UncrossableError(f"the other process is gone: {error}") from None
        if not block:
            raise UncrossableError("the other process is gone")
        data += block
    return bytes(data)
