"""How far a change reaches: from changed symbols along their users, across at most three borders between modules."""

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
"""Borders between modules that a change is followed across."""
FADING = 0.5
"""Each border beyond the first halves the weight."""
UNNAMED_METHOD = 0.5
"""Confidence that the user of a class depends on a method of it that it does not name."""
MOST_SHARED = 5
"""A method name that more definitions share than this says nothing about whose it is."""
BUILTINS = (str, bytes, int, float, list, tuple, dict, set, frozenset, object)


@dataclass(frozen=True)
class ReachedSymbol:
    """A symbol that a change reaches, by the way that carries the largest weight."""

    symbol: Symbol
    weight: float
    """Weight of the change x confidence along the way, not yet faded."""
    hops: int
    """Borders between modules crossed."""
    parent: ReachedSymbol | None
    score: float
    """The weight, faded."""

    def way(self) -> tuple[str, ...]:
        """The changed symbol, then the files on the way, this one last."""
        links: list[ReachedSymbol] = []
        step: ReachedSymbol | None = self
        while step is not None:
            links.append(step)
            step = step.parent
        files = list(dict.fromkeys(link.symbol[0] for link in reversed(links)))
        path, name = links[-1].symbol
        return (f"{path}::{name}", *files[1:])


class Explorer:
    """Asks one graph for users, and remembers the answers."""

    def __init__(self, graph: Graph, *, fading: float = FADING, doubts: bool = True) -> None:
        """
        Args:
            fading: what each border beyond the first multiplies the weight by.
            doubts: False: every user counts as certain.
        """
        self._graph = graph
        self._fading = fading
        self._doubts = doubts
        self._users: dict[Symbol, list[tuple[Symbol, float]]] = {}

    def reach(self, changed: Mapping[Symbol, float]) -> dict[Symbol, ReachedSymbol]:
        """Every symbol within HOPS of a changed one (weights in (0, 1]), the changed ones included."""
        best: dict[Symbol, ReachedSymbol] = {}
        turn = count()  # settles ties, in a fixed order
        queue = [
            (-weight, next(turn), ReachedSymbol(symbol, weight, 0, None, weight))
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
                continue  # that a module imports something affected does not affect all who import that module
            for user, confidence in self.users(symbol):
                hops = step.hops + (user[0] != symbol[0])
                if user not in best and hops <= HOPS:
                    weight = step.weight * confidence
                    further = ReachedSymbol(user, weight, hops, step, weight * self._fading ** max(0, hops - 1))
                    heapq.heappush(queue, (-further.score, next(turn), further))
        return best

    def within(self, symbols: set[Symbol]) -> dict[str, int]:
        """The files within HOPS of any of the symbols, whatever the confidence -> borders that lie between."""
        hops = dict.fromkeys(symbols, 0)
        waiting = deque(symbols)
        while waiting:
            symbol = waiting.popleft()
            if symbol[1] == MODULE and symbol not in symbols:
                continue
            for user, _ in self.users(symbol):
                border = user[0] != symbol[0]
                if hops[symbol] + border < hops.get(user, HOPS + 1):
                    hops[user] = hops[symbol] + border
                    (waiting.append if border else waiting.appendleft)(user)  # nearest first
        nearest: dict[str, int] = {}
        for (path, _), far in hops.items():
            nearest[path] = min(far, nearest.get(path, far))
        return nearest

    def users(self, symbol: Symbol) -> list[tuple[Symbol, float]]:
        """(user, confidence that it depends on the symbol)"""
        if symbol not in self._users:
            best: dict[Symbol, float] = {}
            for user, confidence in self._found(symbol):
                best[user] = max(confidence if self._doubts else 1.0, best.get(user, 0.0))
            best.pop(symbol, None)
            self._users[symbol] = sorted(best.items())  # the order of sets differs between processes
        return self._users[symbol]

    def _found(self, symbol: Symbol) -> Iterator[tuple[Symbol, float]]:
        path, name = symbol
        if name == MODULE:
            yield from (((importer, MODULE), 1.0) for importer in self._graph.importers(path))
            return
        owner, _, method = name.rpartition(".")
        if not owner:
            yield from ((user, 1.0) for user in self._graph.users(symbol))
            return
        of_class = set(self._graph.users((path, owner.partition(".")[0])))
        # Nobody is handed an object of a test's class: its methods are called by those who name the class.
        among = {path, *(file for file, _ in of_class)} if is_test(path) else None
        naming = set(self._graph.attribute_users(method, among))
        implicit = method.startswith("__") and method.endswith("__")
        yield from ((user, 1.0 if implicit or user in naming else UNNAMED_METHOD) for user in of_class)
        if not implicit:
            yield from self._by_attribute(path, owner, method, naming - of_class)

    def _by_attribute(self, path: str, owner: str, method: str, users: set[Symbol]) -> Iterator[tuple[Symbol, float]]:
        """Users of `.method` that do not name its class."""
        guess = 0.0 if is_test(path) else self._guess(method)
        for user_path, user in users:
            if user_path == path and user.startswith(f"{owner}."):
                yield (user_path, user), 1.0  # another method of the class
            elif guess:
                yield (user_path, user), guess

    def _guess(self, method: str) -> float:
        """Confidence that `.method` of some object is the one of a certain class: shared among all who define it."""
        sharing = self._graph.definitions(method) + sum(hasattr(kind, method) for kind in BUILTINS)
        return 1.0 / max(1, sharing) if sharing <= MOST_SHARED else 0.0
