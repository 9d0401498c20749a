"""Functions through which a copied test file passes its expectations, unchanged or perturbed.

`regrade.evaluators.verification.copied_tests` appends this module's code to each copy, under random names: it must not
import anything of this package.
"""

from __future__ import annotations

import hashlib
from typing import Any

PERTURBATION_KEY = ""
"""Of the copy; with a token it determines whether that token's expectation is perturbed."""


def perturbed_value(value: Any, choice: int = 0) -> Any:
    """A value of the same type, if possible, that is unequal to the given one; in a container, one item differs.

    Args:
        choice: any number; selects the item.
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
        target = choice % len(value)
        changed = [perturbed_value(item, choice // 7) if i == target else item for i, item in enumerate(value)]
        return type(value)(changed)
    if type(value) is dict and value:
        target = choice % len(value)
        return {
            key: perturbed_value(item, choice // 7) if i == target else item
            for i, (key, item) in enumerate(value.items())
        }
    if type(value) in (list, tuple):
        return type(value)((0.5,))
    if type(value) is dict:
        return {"\u2020": 0.5}
    if type(value) in (set, frozenset):
        return value | {"\u2020"}
    if value is None:
        return "\u2020"
    return _perturbed_instance(value, choice)


def _perturbed_instance(value: Any, choice: int) -> Any:
    """An instance of the same class with one attribute perturbed, if it has a plain one."""
    try:
        state = dict(vars(value))
        names = sorted(name for name in state if type(state[name]) in (bool, int, float, str, bytes, list, tuple, dict))
        name = names[choice % len(names)]
        perturbed = object.__new__(type(value))
        vars(perturbed).update({**state, name: perturbed_value(state[name], choice // 7)})
        return perturbed
    except Exception:
        return object()


def perturbation_digest(token: str) -> bytes:
    return hashlib.sha256(f"{PERTURBATION_KEY} {token}".encode()).digest()


def passed_value(token: str, value: Any) -> Any:
    """An expected value."""
    digest = perturbation_digest(token)
    return perturbed_value(value, digest[1]) if digest[0] & 1 else value


def passed_literal(token: str) -> Any:
    """An expected literal: the token contains its text, masked with a key derived from the token's start."""
    start, _, hidden = token.partition(".")
    text = bytes.fromhex(hidden)
    mask = hashlib.shake_256(f"{PERTURBATION_KEY} {start}".encode()).digest(len(text))
    return eval(bytes(one ^ other for one, other in zip(text, mask, strict=True)).decode("utf-8", "surrogatepass"))


def passed_truth(token: str, value: Any) -> Any:
    """An expected truth."""
    return not value if perturbation_digest(token)[0] & 1 else value


def passed_error(token: str, expected: Any) -> Any:
    """The class of an expected exception or warning."""
    if not perturbation_digest(token)[0] & 1:
        return expected
    first = expected[0] if isinstance(expected, tuple) and expected else expected
    warns = isinstance(first, type) and issubclass(first, Warning)
    return type("Unexpected", (Warning if warns else BaseException,), {})
