"""Digests: keys of the evidence store, and JSON sealed with the digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

SEAL_LENGTH = len('{"sha256": "", "content": ') + 64


def key_of(parts: Sequence[str]) -> bytes:
    """SHA-256 of a list of texts; no two lists share one."""
    return hashlib.sha256(json.dumps(list(parts)).encode("utf-8", "surrogatepass")).digest()


def sealed(content: str) -> str:
    """JSON together with its digest, as JSON, for `unsealed`."""
    return f'{{"sha256": "{hashlib.sha256(content.encode()).hexdigest()}", "content": {content}}}'


def unsealed(text: str) -> str:
    """The JSON that `sealed` was given. Raises ValueError where not every byte is as it was written."""
    content = text[SEAL_LENGTH:-1]
    if sealed(content) != text:
        raise ValueError("its digest is that of another content")
    return content
