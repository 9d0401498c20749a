"""One patch of four hunks, and what each has to do with its reward. Prints the example of docs/hunks.md.

python benchmarks/hunk_shares.py             the shares
python benchmarks/hunk_shares.py --patch     the patch alone
python benchmarks/hunk_shares.py --errors    how often sampled shares lie within two of their standard errors
"""

from __future__ import annotations

import math
import statistics
import sys

from rich.console import Console

from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_task
from regrade.evaluators.attribution.hunk_attribution import attribute
from regrade.evaluators.attribution.shapley import Worths, antithetic_orders, coalitions, exact, sampled
from regrade.evaluators.scoring.scorer import Scorer
from regrade.reports.hunks import print_attribution
from regrade.rewards import default

TASK = "toolz/toolz/itertoolz.py:frequencies:arithmetic-operator:548:16:0"
FILE = "toolz/itertoolz.py"
EDITS = {
    "def remove(predicate, seq):\n": (
        "def _counted(seq):\n    counts = collections.defaultdict(int)\n    for item in seq:\n"
        "        counts[item] += 1\n    return counts\n\n\ndef remove(predicate, seq):\n"
    ),
    "    return itertools.islice(seq, 0, None, n)\n": "    return itertools.islice(seq, n - 1, None, n)\n",
    "    return next(iter(seq))\n": "    # The first one.\n    return next(iter(seq))\n",
    "    d = collections.defaultdict(int)\n    for item in seq:\n        d[item] -= 1\n    return dict(d)\n": (
        "    return dict(_counted(seq))\n"
    ),
}
"""A helper, a "simplification" nobody asked for, a comment, and the use of the helper, which is the fix."""


SAMPLES = 300


def errors() -> None:
    """Nine players, of whom two must come together and a third spoils it; the shares of these three."""
    worths = {each: float({0, 1} <= each and 2 not in each) for each in coalitions(9)}
    truth = [share.value or 0.0 for share in exact(9, worths)]
    for pairs in (2, 4, 8, 16):
        drawn = [antithetic_orders(9, pairs, seed) for seed in range(SAMPLES)]
        # As many orders, drawn one by one: each stands for a pair of its own.
        single = [
            [each for order in antithetic_orders(9, 2 * pairs, seed)[::2] for each in (order, order)]
            for seed in range(SAMPLES)
        ]
        (within, reversed_error), (_, single_error) = (_accuracy(orders, worths, truth) for orders in (drawn, single))
        print(
            f"{pairs:2} pairs of orders: {within:.0%} within two standard errors; root mean square error "
            f"{reversed_error:.3f}, of as many orders drawn one by one {single_error:.3f}"
        )


def _accuracy(samples: list[list[tuple[int, ...]]], worths: Worths, truth: list[float]) -> tuple[float, float]:
    within, squares = [], []
    for orders in samples:
        found = sampled(9, orders, worths)
        for each in range(3):
            error = abs((found[each].value or 0.0) - truth[each])
            within.append(error <= 2 * found[each].standard_error)
            squares.append(error**2)
    return statistics.fmean(within), math.sqrt(statistics.fmean(squares))


def main() -> None:
    if "--errors" in sys.argv:
        errors()
        return
    task = load_task("builtin", TASK)
    before = after = task.base.read(FILE)
    for old, new in EDITS.items():
        assert after.count(old) == 1, old
        after = after.replace(old, new)
    patch = Patch.between({FILE: before}, {FILE: after})
    if "--patch" in sys.argv:
        print(patch.text, end="")
        return
    with Scorer() as scorer:
        print_attribution(attribute(scorer, task, patch, default), Console(width=200, highlight=False))


if __name__ == "__main__":
    main()
