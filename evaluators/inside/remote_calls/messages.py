"""Messages between the two processes: a length and JSON, in one of the `FORMS`."""

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
"""Fields of a request, an answer and an error."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Raises UncrossableError: the other process has exited."""
    data = json.dumps(message).encode()
    try:
        connection.sendall(struct.pack("!I", len(data)) + data)
    except OSError as error:
        raise UncrossableError(f"the other process has exited: {error}") from None


def receive(connection: socket.socket) -> dict[str, Any]:
    """The next message. Raises UncrossableError: the other process has exited, or the message is invalid."""
    (size,) = struct.unpack("!I", _read(connection, 4))
    if size > LARGEST_MESSAGE:
        raise UncrossableError(f"the other process sent a message of {size} bytes")
    try:
        message = json.loads(_read(connection, size))
    except (ValueError, RecursionError):
        raise UncrossableError("the other process sent an invalid message") from None
    if isinstance(message, dict):
        for form in FORMS:
            if message.keys() == form.keys() and all(isinstance(message[name], form[name]) for name in form):
                return message
    raise UncrossableError("the other process sent an invalid message")


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            block = connection.recv(min(size - len(data), 1 << 20))
        except OSError as error:
            raise UncrossableError(f"the other process has exited: {error}") from None
        if not block:
            raise UncrossableError("the other process has exited")
        data += block
    return bytes(data)
