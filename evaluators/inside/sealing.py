"""Lines of results that only who holds a key can have written.

A candidate finds every descriptor of its process, and may write to all of them. What it writes blindly bears no seal
and is dropped. The key lies in the memory of the same process, so this keeps out guesses and not a search.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from hashlib import blake2b

KEY_BYTES = 16
SEAL_BYTES = 12


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def sealing_writer(descriptor: int, key: bytes) -> Callable[[str], None]:
    """What appends a line with its seal. Nothing that it calls can be replaced by name, as `os.write` can."""
    append, digest, size = os.write, blake2b, SEAL_BYTES

    def write(line: str) -> None:
        data = line.encode("utf-8", "backslashreplace")
        append(descriptor, digest(data, digest_size=size, key=key).hexdigest().encode() + b" " + data + b"\n")

    return write


def unsealed_lines(data: bytes, key: bytes) -> list[str]:
    """The lines whose seals are right, without them."""
    found = []
    for line in data.split(b"\n"):
        seal, _, content = line.partition(b" ")
        wanted = blake2b(content, digest_size=SEAL_BYTES, key=key).hexdigest().encode()
        if hmac.compare_digest(seal, wanted):
            found.append(content.decode("utf-8", "replace"))
    return found
