"""Result lines sealed with a keyed hash, so that only a writer with the key can produce them.

A candidate can write to every descriptor of its process. Lines without a valid seal are dropped. The key is in the
memory of the same process, so a seal protects against blind writes, not against a search of memory.
"""

from __future__ import annotations

import hmac
import os
import sys
from collections.abc import Callable
from hashlib import blake2b
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

KEY_BYTES = 16
SEAL_BYTES = 12
PROGRAMS = str(Path(__file__).parent)
"""Folder of the programs that may write."""


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def sealing_writer(descriptor: int, key: bytes, programs: str = PROGRAMS) -> Callable[[str], None]:
    """A function that appends a line with its seal. It binds its callees: replacing `os.write` has no effect.

    A call from code outside of the folder of programs is reported before the line, as tampering.
    """
    append, digest, size, frame, own = os.write, blake2b, SEAL_BYTES, sys._getframe, f"{programs}/"

    def write(line: str) -> None:
        caller = frame(1).f_code.co_filename
        if not caller.startswith(own):
            add(f'["tampered", "a result is written by other code than the runner\'s", {quoted(caller[-200:])}]')
        add(line)

    def add(line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        append(descriptor, digest(data, digest_size=size, key=key).hexdigest().encode() + b" " + data + b"\n")

    return write


def unsealed_lines(data: bytes, key: bytes) -> list[str]:
    """The lines with a valid seal, seals removed."""
    lines = []
    for line in data.split(b"\n"):
        seal, _, content = line.partition(b" ")
        expected = blake2b(content, digest_size=SEAL_BYTES, key=key).hexdigest().encode()
        if hmac.compare_digest(seal, expected):
            lines.append(content.decode("utf-8", "replace"))
    return lines
