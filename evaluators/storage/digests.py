"""Digests: keys of the evidence store, and JSON sealed with the digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

SEAL_LENGTH = len('{"sha256": "", "content": ') + 64


def key_of(parts: Sequence[str]) -> bytes:
    """SHA-256 of a list of texts; different lists have different keys."""
    return hashlib.sha256(json.dumps(list(parts)).encode("utf-8", "surrogatepass")).digest()


def sealed(content: str) -> str:
    """The content (JSON) with its SHA-256 digest, as one JSON object; `unsealed` reads it."""
    return f'{{"sha256": "{hashlib.sha256(content.encode()).hexdigest()}", "content": {content}}}'


def unsealed(text: str) -> str:
    """The content that `sealed` wrote. Raises ValueError if any byte has changed since."""
    content = text[SEAL_LENGTH:-1]
    if sealed(content) != text:
        raise ValueError("its digest does not match its content")
    return content
