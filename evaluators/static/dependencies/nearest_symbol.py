"""Of several changed symbols, the one that a test most likely speaks of."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regrade.datasets.node_ids import function_of
from regrade.evaluators.static.dependencies.facts import MODULE
from regrade.evaluators.static.dependencies.graph import Symbol
from regrade.evaluators.static.dependencies.reach import HOPS, Explorer

MOST = 50
"""A patch that changes more symbols is not taken apart: following each costs as much as following all."""


def nearest_symbols(
    explorer: Explorer,
    changed: Mapping[Symbol, float],
    measured: Mapping[str, tuple[str, ...]] | None,
    is_test: Callable[[str], bool],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Changed symbols, as `file::name`, with the test functions that each is nearest to; none where only one changed.

    A symbol that the test executes is nearer than any that it does not; of those, the one with the fewest borders
    between modules; of those, the one that weighs most on the way.

    Args:
        changed: symbol -> weight of its change.
        measured: see `TestSuite.reach`.
        is_test: of a file.
    """
    if not 1 < len(changed) <= MOST:
        return ()
    best: dict[str, tuple[tuple[bool, int, float], str]] = {}
    for symbol, weight in sorted(changed.items()):
        key = "::".join(symbol)
        executing = {function_of(test) for test in (measured or {}).get(key, ())}
        reached = explorer.reach({symbol: weight}).items()
        steps = {_test_id(user): step for user, step in reached if user[1] != MODULE and is_test(user[0])}
        for test in executing | steps.keys():
            step = steps.get(test)
            hops, score = (step.hops, step.score) if step is not None else (HOPS + 1, 0.0)
            best[test] = min(best.get(test, ((True, HOPS + 2, 0.0), "")), ((test not in executing, hops, -score), key))
    found: dict[str, list[str]] = {}
    for test, (_, key) in sorted(best.items()):
        found.setdefault(key, []).append(test)
    return tuple((key, tuple(tests)) for key, tests in sorted(found.items()))


def _test_id(symbol: Symbol) -> str:
    path, name = symbol
    return f"{path}::{name.replace('.', '::')}"
