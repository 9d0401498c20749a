"""What stands for a value that the other side of a split run keeps: whatever is done to it is asked there."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import Packed, Side, UncrossableError

Known = tuple[str, int, str, Packed]
"""Side, number, kind and looks of a value that does not cross."""


class StandIn:
    """A value of the other side."""

    __slots__ = ("__signature__", "__weakref__", "_regrade_known", "_regrade_peer")
    _regrade_known: Known
    _regrade_peer: Side

    def __init__(self, peer: Side, known: Known) -> None:
        object.__setattr__(self, "_regrade_peer", peer)
        object.__setattr__(self, "_regrade_known", known)


class RemoteCallable(StandIn):
    """A callable of the other side; equal to itself alone."""

    __slots__ = ("__dict__",)

    def __init__(self, peer: Side, known: Known) -> None:
        super().__init__(peer, known)
        looks = known[3] if isinstance(known[3], dict) else {}
        if looks.get("parameters") is not None:
            object.__setattr__(self, "__signature__", _signature(looks["parameters"]))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._regrade_peer.ask("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        looks = self._regrade_known[3]
        if name in ((looks or {}).get("attributes") or ()):
            return self._regrade_peer.ask("attribute", self, name)
        raise AttributeError(name)


class RemoteIterator(StandIn):
    """An iterator of the candidate's, or a generator."""

    __slots__ = ()

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        return self._regrade_peer.ask("next", self)

    def send(self, value: Any) -> Any:
        return self._regrade_peer.ask("send", self, value)

    def throw(self, error: Any, *_: Any) -> Any:
        return self._regrade_peer.ask("throw", self, error)

    def close(self) -> Any:
        return self._regrade_peer.ask("close", self)


class Opaque(StandIn):
    """Any other object of the tests, in the candidate's process: operators and attributes ask for it there."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._regrade_peer.ask("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._regrade_peer.ask("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._regrade_peer.ask("delete", self, name)


@functools.lru_cache(maxsize=256)
def opaque(special: tuple[str, ...]) -> type[Opaque]:
    """The class of stand-ins for objects that have these operators, so that they are taken for what they are."""
    members: dict[str, Any] = {name: _operator(name) for name in special}
    if "__hash__" not in special:
        members["__hash__"] = None
    return type("Opaque", (Opaque,), {**members, "__slots__": ()})


def _operator(name: str) -> Callable[..., Any]:
    def operate(self: Any, *arguments: Any) -> Any:
        return self._regrade_peer.ask("special", self, name, arguments)

    return operate


def _signature(parameters: list[list[Any]]) -> inspect.Signature:
    """Raises UncrossableError."""
    made = []
    try:
        for name, kind, has_default in parameters:
            default = ... if has_default else inspect.Parameter.empty
            made.append(inspect.Parameter(name, inspect._ParameterKind(kind), default=default))
        return inspect.Signature(made)
    except (TypeError, ValueError) as error:
        raise UncrossableError(f"what came are no parameters: {error}") from None
