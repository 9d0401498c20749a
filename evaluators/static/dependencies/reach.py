"""The reach of a change: from changed symbols to their users, across at most three module boundaries."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count

from regrade.evaluators.static.dependencies.facts import MODULE
from regrade.evaluators.static.dependencies.graph import Graph, Symbol
from regrade.evaluators.static.languages import is_test

HOPS = 3
"""Most module boundaries that a change is followed across."""
DECAY = 0.5
"""Factor of the weight for each module boundary beyond the first."""
UNNAMED_METHOD = 0.5
"""Confidence that a user of a class depends on a method that the user does not name."""
MAX_SHARED = 5
"""Most definitions of a method name; a name with more does not identify the class."""
BUILTINS = (str, bytes, int, float, list, tuple, dict, set, frozenset, object)


@dataclass(frozen=True)
class ReachedSymbol:
    """A symbol that a change reaches, by the path with the largest score."""

    symbol: Symbol
    weight: float
    """Weight of the change x confidence along the path, without decay."""
    hops: int
    """Module boundaries crossed."""
    parent: ReachedSymbol | None
    score: float
    """The weight with decay."""

    def trace(self) -> tuple[str, ...]:
        """The changed symbol, then the files on the path to this symbol, whose own file is last."""
        steps: list[ReachedSymbol] = []
        step: ReachedSymbol | None = self
        while step is not None:
            steps.append(step)
            step = step.parent
        files = list(dict.fromkeys(step.symbol[0] for step in reversed(steps)))
        path, name = steps[-1].symbol
        return (f"{path}::{name}", *files[1:])


class Explorer:
    """Follows changes through one graph, and caches the users of each symbol."""

    def __init__(self, graph: Graph, *, decay: float = DECAY, uses_confidence: bool = True) -> None:
        """
        Args:
            decay: factor of the weight for each module boundary beyond the first.
            uses_confidence: False: every user has confidence 1.
        """
        self._graph = graph
        self._decay = decay
        self._uses_confidence = uses_confidence
        self._users: dict[Symbol, list[tuple[Symbol, float]]] = {}

    def reach(self, changed: Mapping[Symbol, float]) -> dict[Symbol, ReachedSymbol]:
        """Every symbol within HOPS of a changed one, changed ones included; the weights in `changed` are in (0, 1]."""
        best: dict[Symbol, ReachedSymbol] = {}
        order = count()  # breaks ties deterministically
        queue = [
            (-weight, next(order), ReachedSymbol(symbol, weight, 0, None, weight))
            for symbol, weight in sorted(changed.items())
        ]
        heapq.heapify(queue)
        while queue:
            step = heapq.heappop(queue)[2]
            symbol = step.symbol
            if symbol in best:
                continue
            best[symbol] = step
            if symbol[1] == MODULE and step.parent is not None:
                continue  # an affected import does not affect all importers of the importing module
            for user, confidence in self.users(symbol):
                hops = step.hops + (user[0] != symbol[0])
                if user not in best and hops <= HOPS:
                    weight = step.weight * confidence
                    user_step = ReachedSymbol(user, weight, hops, step, weight * self._decay ** max(0, hops - 1))
                    heapq.heappush(queue, (-user_step.score, next(order), user_step))
        return best

    def within(self, symbols: set[Symbol]) -> dict[str, int]:
        """File within HOPS of any of the symbols, at any confidence -> module boundaries between them."""
        hops = dict.fromkeys(symbols, 0)
        queue = deque(symbols)
        while queue:
            symbol = queue.popleft()
            if symbol[1] == MODULE and symbol not in symbols:
                continue
            for user, _ in self.users(symbol):
                boundary = user[0] != symbol[0]
                if hops[symbol] + boundary < hops.get(user, HOPS + 1):
                    hops[user] = hops[symbol] + boundary
                    (queue.append if boundary else queue.appendleft)(user)  # nearest first
        nearest: dict[str, int] = {}
        for (path, _), distance in hops.items():
            nearest[path] = min(distance, nearest.get(path, distance))
        return nearest

    def users(self, symbol: Symbol) -> list[tuple[Symbol, float]]:
        """(user, confidence that it depends on the symbol)"""
        if symbol not in self._users:
            best: dict[Symbol, float] = {}
            for user, confidence in self._find_users(symbol):
                best[user] = max(confidence if self._uses_confidence else 1.0, best.get(user, 0.0))
            best.pop(symbol, None)
            self._users[symbol] = sorted(best.items())  # set order differs between processes
        return self._users[symbol]

    def _find_users(self, symbol: Symbol) -> Iterator[tuple[Symbol, float]]:
        path, name = symbol
        if name == MODULE:
            yield from (((importer, MODULE), 1.0) for importer in self._graph.importers(path))
            return
        owner, _, method = name.rpartition(".")
        if not owner:
            yield from ((user, 1.0) for user in self._graph.users(symbol))
            return
        of_class = set(self._graph.users((path, owner.partition(".")[0])))
        # Objects of a test class stay in its module: only users of the class call its methods.
        paths = {path, *(file for file, _ in of_class)} if is_test(path) else None
        naming = set(self._graph.attribute_users(method, paths))
        implicit = method.startswith("__") and method.endswith("__")
        yield from ((user, 1.0 if implicit or user in naming else UNNAMED_METHOD) for user in of_class)
        if not implicit:
            yield from self._by_attribute(path, owner, method, naming - of_class)

    def _by_attribute(self, path: str, owner: str, method: str, users: set[Symbol]) -> Iterator[tuple[Symbol, float]]:
        """Users of `.method` that do not name its class."""
        confidence = 0.0 if is_test(path) else self._shared_confidence(method)
        for user_path, user in users:
            if user_path == path and user.startswith(f"{owner}."):
                yield (user_path, user), 1.0  # another method of the class
            elif confidence:
                yield (user_path, user), confidence

    def _shared_confidence(self, method: str) -> float:
        """Confidence that `.method` of some object is that of a certain class: 1 / number of its definitions."""
        definitions = self._graph.definitions(method) + sum(hasattr(kind, method) for kind in BUILTINS)
        return 1.0 / max(1, definitions) if definitions <= MAX_SHARED else 0.0
