"""What the expectations of a twin pass through (see `regrade.evaluators.verification.copied_tests`): each as it is, or
turned.

It stands alone: its text is appended to every twin, under names that nobody can foresee.
"""

from __future__ import annotations

import hashlib
from typing import Any

TURNING_KEY = ""
"""Of the twin; it decides with each token whether that token's expectation is turned."""


def perturbed_value(value: Any, choice: int = 0) -> Any:
    """A value that differs from another one in a builtin way; in a container, one of the items does.

    Args:
        choice: any number; says which item.
    """
    if isinstance(value, bool):
        return not value
    if type(value) in (int, float, complex):
        return value + 1 if value + 1 != value and value == value else 0.5
    if type(value) is str:
        return value + "\u2020"
    if type(value) is bytes:
        return value + b"\0"
    if type(value) in (list, tuple) and value:
        place = choice % len(value)
        changed = [perturbed_value(item, choice // 7) if at == place else item for at, item in enumerate(value)]
        return type(value)(changed)
    if type(value) is dict and value:
        place = choice % len(value)
        return {
            key: perturbed_value(item, choice // 7) if at == place else item
            for at, (key, item) in enumerate(value.items())
        }
    if type(value) in (list, tuple):
        return type(value)((0.5,))
    if type(value) is dict:
        return {"\u2020": 0.5}
    if type(value) in (set, frozenset):
        return value | {"\u2020"}
    if value is None:
        return "\u2020"
    return object()


def turning_digest(token: str) -> bytes:
    return hashlib.sha256(f"{TURNING_KEY} {token}".encode()).digest()


def passed_value(token: str, value: Any) -> Any:
    """An expected value."""
    digest = turning_digest(token)
    return perturbed_value(value, digest[1]) if digest[0] & 1 else value


def passed_literal(token: str) -> Any:
    """An expected value that stands nowhere else: a token, and the value's text under a key that comes of it."""
    start, _, hidden = token.partition(".")
    text = bytes.fromhex(hidden)
    mask = hashlib.shake_256(f"{TURNING_KEY} {start}".encode()).digest(len(text))
    return eval(bytes(one ^ other for one, other in zip(text, mask, strict=True)).decode("utf-8", "surrogatepass"))


def passed_truth(token: str, value: Any) -> Any:
    """What is expected to be true."""
    return not value if turning_digest(token)[0] & 1 else value


def passed_error(token: str, expected: Any) -> Any:
    """The class of an expected exception or warning."""
    if not turning_digest(token)[0] & 1:
        return expected
    first = expected[0] if isinstance(expected, tuple) and expected else expected
    warns = isinstance(first, type) and issubclass(first, Warning)
    return type("Unexpected", (Warning if warns else BaseException,), {})
