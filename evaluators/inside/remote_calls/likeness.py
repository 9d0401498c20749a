"""Do instances in a candidate's answers equal more than one value?

The tests compare answers by the equality of the repository's classes. An instance that equals almost everything passes
any such test. So each instance is rebuilt here, in a process without the candidate's code, and compared with other
values (*probes*). It may not equal two of them that are unequal to each other, unless a part of the reference's answer
does so too.

Lines: `["likeness", index of the answer, problem]`, an empty problem if there is none.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import json
import operator
import socket
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from regrade.evaluators.inside.remote_calls.packing import attributes_of
from regrade.evaluators.inside.remote_calls.peer import Peer
from regrade.evaluators.inside.remote_calls.plain_values import Packed
from regrade.evaluators.inside.remote_calls.sides import module_origins
from regrade.evaluators.inside.remote_calls.unpacking import Unpacker

Write = Callable[[str], None]
MOST_PARTS = 2000
SERIES: tuple[Any, ...] = (list, tuple, set, frozenset, deque)
MOST_PROBES = 60
EQUALITIES: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("equals", lambda value, probe: value == probe),
    ("equals", lambda value, probe: probe == value),
    ("is not unequal to", lambda value, probe: not operator.ne(value, probe)),
    ("differs by nothing from", lambda value, probe: abs(value - probe) < 1e-6),
)
OTHERS: tuple[tuple[str, Callable[[Any, Any], Any]], ...] = (
    ("contains", lambda value, probe: probe in value),
    ("is both less and more than", lambda value, probe: value < probe and value > probe),
    ("is at most and at least", lambda value, probe: value <= probe and value >= probe),
    ("has any attribute, such as", lambda value, probe: getattr(value, f"absent_{probe}")),
)
"""What a test may ask of a value; of the last ones, none holds for a value drawn by chance."""


def examine_answers(request: dict[str, Any], write: Write) -> int:
    """Examine each of `answers`: (nodes of the call, the candidate's answer, the trusted one or None).

    Further probes are the values of `chance`, and the parts of the trusted answers in `others`, (nodes, answer).
    """
    crossing, peer = request["crossing"], _Examiner(request)
    chance = [*crossing["chance"], object()]
    probes = list(chance)
    for sent, answer in crossing["others"]:
        with contextlib.suppress(BaseException):
            probes += [part for part in _parts(peer, peer.value(sent, answer)) if _may_be_expected(peer, part)]
    for index, (sent, answer, trusted) in enumerate(crossing["answers"]):
        try:
            parts = [part for part in _parts(peer, peer.value(sent, answer)) if _has_own_behaviour(peer, part)]
            allowed = [] if trusted is None else list(_parts(peer, peer.value(sent, trusted)))
            problem = _problem(parts, allowed, probes[: len(chance) + MOST_PROBES], chance)
        except BaseException as error:
            problem = f"it can't be examined: {type(error).__name__}"
        write(json.dumps(["likeness", index, problem[:200]]))
    return 0


class _Examiner(Peer):
    """A side without another one: what crossed by number is None."""

    def __init__(self, request: dict[str, Any]) -> None:
        super().__init__("tests", socket.socket(), module_origins(request["root"], frozenset()))
        self._modules = frozenset(request["own"])

    def value(self, sent: list[Packed], answer: dict[str, Any]) -> Any:
        """The answer to a call with these nodes."""
        return Unpacker(self, [*sent, *answer["nodes"]]).unpack(answer["value"])

    def proxy(self, *_: Any) -> Any:
        return None

    def resolve(self, module: str, name: str) -> Any:
        if module in self._modules or module.partition(".")[0] in self._modules:
            with contextlib.suppress(BaseException):
                importlib.import_module(module)
        return super().resolve(module, name)

    def _may_be_named(self, _: Any) -> bool:
        """The tests' own process has decided."""
        return True


def _parts(peer: Peer, value: Any) -> Iterator[Any]:
    """The value, and all values in it."""
    waiting, seen = deque([value]), dict[int, Any]()
    while waiting and len(seen) < MOST_PARTS:
        part = waiting.popleft()
        if id(part) in seen:
            continue
        seen[id(part)] = part
        yield part
        if isinstance(part, dict):
            waiting.extend(dict.keys(part))
            waiting.extend(dict.values(part))
        for kind in SERIES:
            if isinstance(part, kind):
                waiting.extend(kind.__iter__(part))
        if isinstance(part, BaseException):
            waiting.extend(part.args)
        if isinstance(part, BaseException) or peer.is_own_class(type(part)):
            waiting.extend(attribute for _, attribute in attributes_of(part))


def _may_be_expected(peer: Peer, value: Any) -> bool:
    return isinstance(value, str | bytes | int | float) or _has_own_behaviour(peer, value)


def _problem(parts: list[Any], allowed: list[Any], probes: list[Any], chance: list[Any]) -> str:
    for part in parts:
        shown = f"an instance of {type(part).__qualname__}"
        for words, test in EQUALITIES:
            met = [probe for probe in probes if _holds(test, part, probe)]
            pair = next(((one, other) for one in met for other in met if _differ(one, other)), None)
            if pair and not any(all(_holds(test, other, probe) for probe in pair) for other in allowed):
                return f"{shown} {words} {_shown(pair[0])} and {_shown(pair[1])}"
        for words, test in OTHERS:
            for probe in chance:
                if _holds(test, part, probe) and not any(_holds(test, other, probe) for other in allowed):
                    return f"{shown} {words} {_shown(probe)}"
    return ""


def _differ(one: Any, other: Any) -> bool:
    return one is not other and not any(_holds(EQUALITIES[0][1], *pair) for pair in ((one, other), (other, one)))


def _has_own_behaviour(peer: Peer, value: Any) -> bool:
    if isinstance(value, enum.Enum):
        return False
    if isinstance(value, type):
        return type(value) is not type and peer.is_own_class(type(value))
    return peer.is_own_class(type(value))


def _holds(test: Callable[[Any, Any], Any], value: Any, probe: Any) -> bool:
    try:
        return bool(test(value, probe))
    except BaseException:
        return False


def _shown(probe: Any) -> str:
    return "any object" if type(probe) is object else repr(probe)[:60]
