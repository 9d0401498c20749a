"""The changed symbol that is nearest to a test: the likeliest cause of its failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from regrade.datasets.node_ids import function_of
from regrade.evaluators.static.dependencies.facts import MODULE
from regrade.evaluators.static.dependencies.graph import Symbol
from regrade.evaluators.static.dependencies.reach import HOPS, Explorer

MAX_SYMBOLS = 50
"""Most changed symbols of a patch that are followed one by one: each costs as much as all together."""


def nearest_symbols(
    explorer: Explorer,
    changed: Mapping[Symbol, float],
    measured: Mapping[str, tuple[str, ...]] | None,
    is_test: Callable[[str], bool],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Changed symbols, as `file::name`, each with its nearest test functions; empty unless several symbols changed.

    An executed symbol is nearer to a test than one that the test does not execute; then fewer module boundaries are
    nearer; then a larger score.

    Args:
        changed: symbol -> weight of its change.
        measured: see `TestSuite.reach`.
        is_test: whether a path is a test file.
    """
    if not 1 < len(changed) <= MAX_SYMBOLS:
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
    tests_of: dict[str, list[str]] = {}
    for test, (_, key) in sorted(best.items()):
        tests_of.setdefault(key, []).append(test)
    return tuple((key, tuple(tests)) for key, tests in sorted(tests_of.items()))


def _test_id(symbol: Symbol) -> str:
    path, name = symbol
    return f"{path}::{name.replace('.', '::')}"
