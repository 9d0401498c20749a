"""How often intervals hold the truth, and how often verdicts are false: by simulated evaluations whose truth is known.

    python benchmarks/levels.py --runs 2000        # some minutes on one core; what else runs does not matter

Tasks lie in repositories of 1 to 9, which differ in how hard they are; each is tried twice. An interval of 95 % should
hold the truth in 93 to 97 % of the runs. Of a baseline against itself with other seeds, a verdict of either kind should
come at most 5 times in 100.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from _latest import record

from regrade.evaluators.analysis.comparison import compare
from regrade.evaluators.analysis.uncertainty import Clusters, difference_interval, rate_interval
from regrade.evaluators.storage.rows import COLUMNS, FLAGS, INTEGERS, LISTS, NUMBERS, OPTIONAL

REPOSITORIES = (6, 12, 29, 30, 60, 120)
RATES = (0.03, 0.1, 0.3)
POLICIES = {
    # what a policy does, against a baseline that fixes 30 % and breaks 10 %: (fixes, breaks)
    "the baseline itself": (0.3, 0.1),
    "fixes more": (0.45, 0.1),
    "reckless: fixes more, breaks more": (0.45, 0.3),
    "does nothing": (0.0, 0.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="simulated evaluations for each figure of intervals")
    parser.add_argument("--comparisons", type=int, default=200, help="for each figure of verdicts")
    chosen = parser.parse_args()
    found: dict[str, Any] = {"runs": chosen.runs, "comparisons": chosen.comparisons, "coverage": {}, "verdicts": {}}
    print(f"{'repositories':>12}  difference  " + "  ".join(f"rate {rate:.0%}" for rate in RATES))
    for count in REPOSITORIES:
        shares = list(coverage(count, chosen.runs))
        found["coverage"][str(count)] = shares
        print(f"{count:12}  {shares[0]:9.1%}  " + "  ".join(f"{share:7.1%}" for share in shares[1:]), flush=True)
    for name, rates in POLICIES.items():
        counts = Counter(verdicts(40, chosen.comparisons, *rates))
        found["verdicts"][name] = dict(counts)
        print(f"{name}: " + ", ".join(f"{verdict} {number}" for verdict, number in counts.most_common()), flush=True)
    record("levels", found)


def coverage(repositories: int, runs: int) -> Iterator[float]:
    """Share of the intervals that hold the truth: of a difference of 0.05, then of a rate of each of `RATES`."""
    rng = np.random.default_rng(repositories)
    held = 0
    for _ in range(runs):
        places = np.repeat(np.arange(repositories), rng.integers(1, 10, size=repositories))
        hard = rng.uniform(0.1, 0.7, size=repositories)
        gains = rng.uniform(-0.05, 0.15, size=repositories)  # the mean is 0.05, and no sum leaves 0 to 1
        outcomes = rng.binomial(2, hard[places]) / 2, rng.binomial(2, (hard + gains)[places]) / 2
        low, high = difference_interval(Clusters.of(outcomes[1] - outcomes[0], places))
        held += low <= 0.05 <= high
    yield held / runs
    for rate in RATES:
        held = 0
        for _ in range(runs):
            places = np.repeat(np.arange(repositories), rng.integers(1, 10, size=repositories))
            each = rng.beta(4 * rate, 4 * (1 - rate), size=repositories)[places]
            low, high = rate_interval(Clusters.of(rng.binomial(2, each) / 2, places))
            held += low <= rate <= high
        yield held / runs


def verdicts(repositories: int, comparisons: int, fixes: float, breaks: float) -> Iterator[str]:
    """Verdicts on a policy with these rates."""
    rng = np.random.default_rng(1)
    for _ in range(comparisons):
        places = np.repeat(np.arange(repositories), rng.integers(3, 12, size=repositories))
        factors = rng.uniform(0.5, 1.5, size=(2, repositories))[:, places] * rng.uniform(
            0.2, 1.8, size=(2, len(places))
        )
        yield compare(rows(rng, places, factors, "a", 0.3, 0.1), rows(rng, places, factors, "b", fixes, breaks)).verdict


def rows(
    rng: np.random.Generator, places: np.ndarray, factors: np.ndarray, policy: str, fixes: float, breaks: float
) -> pd.DataFrame:
    """Two attempts at each task; `factors`, of shape (2, tasks), say how easy and how risky each is."""
    tasks = np.repeat(np.arange(len(places)), 2)
    fixed = (rng.random(len(tasks)) < np.clip(fixes * factors[0, tasks], 0, 1)) * 1.0
    broke = (rng.random(len(tasks)) < np.clip(breaks * factors[1, tasks], 0, 1)) * 1.0
    empty: dict[str, Any] = {name: "" for name in COLUMNS if name not in (*NUMBERS, *FLAGS, *INTEGERS, *LISTS)}
    empty |= dict.fromkeys(NUMBERS, 0.0) | dict.fromkeys((*LISTS, *OPTIONAL)) | dict.fromkeys(FLAGS, True)
    return pd.DataFrame(
        empty
        | {
            "policy": policy,
            "task": [f"t{n}" for n in tasks],
            "repository": [f"r{places[n]}" for n in tasks],
            "seed": 0,
            "sample": np.tile([0, 1], len(places)),
            "empty": False,
            "guarded": 100.0,
            "fix": fixed,
            "broke": broke,
            "broken": broke,
            "clean_fix": fixed * (1 - broke),
        }
    )


if __name__ == "__main__":
    main()
