"""Proxies of objects in the other process: each operation on a proxy is a request to that process."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from regrade.evaluators.inside.remote_calls.plain_values import Packed, Side, UncrossableError

RemoteReference = tuple[str, int, str, Packed]
"""Side, number, kind and traits of a value that does not cross."""


class Proxy:
    """A proxy of a value of the other side."""

    __slots__ = ("__signature__", "__weakref__", "_regrade_peer", "_regrade_reference")
    _regrade_reference: RemoteReference
    _regrade_peer: Side

    def __init__(self, peer: Side, reference: RemoteReference) -> None:
        object.__setattr__(self, "_regrade_peer", peer)
        object.__setattr__(self, "_regrade_reference", reference)


class RemoteCallable(Proxy):
    """A callable of the other side; equal to itself alone."""

    __slots__ = ("__dict__",)

    def __init__(self, peer: Side, reference: RemoteReference) -> None:
        super().__init__(peer, reference)
        traits = reference[3] if isinstance(reference[3], dict) else {}
        if traits.get("parameters") is not None:
            object.__setattr__(self, "__signature__", _signature(traits["parameters"]))

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._regrade_peer.request("call", self, arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        traits = self._regrade_reference[3]
        if name in ((traits or {}).get("attributes") or ()):
            return self._regrade_peer.request("attribute", self, name)
        raise AttributeError(name)


class RemoteIterator(Proxy):
    """An iterator or generator of the candidate."""

    __slots__ = ()

    def __iter__(self) -> RemoteIterator:
        return self

    def __next__(self) -> Any:
        return self._regrade_peer.request("next", self)

    def send(self, value: Any) -> Any:
        return self._regrade_peer.request("send", self, value)

    def throw(self, error: Any, *_: Any) -> Any:
        return self._regrade_peer.request("throw", self, error)

    def close(self) -> Any:
        return self._regrade_peer.request("close", self)


class Opaque(Proxy):
    """Any other object of the tests, in the candidate's process: operators and attributes are requests."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._regrade_peer.request("attribute", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._regrade_peer.request("set", self, name, value)

    def __delattr__(self, name: str) -> None:
        self._regrade_peer.request("delete", self, name)


@functools.lru_cache(maxsize=256)
def opaque(special: tuple[str, ...]) -> type[Opaque]:
    """The class of proxies for objects with these operators, so that checks for an operator succeed."""
    members: dict[str, Any] = {name: _operator(name) for name in special}
    if "__hash__" not in special:
        members["__hash__"] = None
    return type("Opaque", (Opaque,), {**members, "__slots__": ()})


def _operator(name: str) -> Callable[..., Any]:
    def operate(self: Any, *arguments: Any) -> Any:
        return self._regrade_peer.request("special", self, name, arguments)

    return operate


def _signature(parameters: list[list[Any]]) -> inspect.Signature:
    """Raises UncrossableError."""
    rebuilt = []
    try:
        for name, kind, has_default in parameters:
            default = ... if has_default else inspect.Parameter.empty
            rebuilt.append(inspect.Parameter(name, inspect._ParameterKind(kind), default=default))
        return inspect.Signature(rebuilt)
    except (TypeError, ValueError) as error:
        raise UncrossableError(f"the other process sent invalid parameters: {error}") from None
