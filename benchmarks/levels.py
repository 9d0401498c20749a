"""How often verdicts are false, intervals hold the truth, and power is what was promised: simulated evaluations.

    python benchmarks/levels.py --runs 1000        # a quarter of an hour on one core; what else runs does not matter

Tasks lie in repositories of unequal size (log-normal). Repositories and tasks differ in how hard they are for both
policies, so their outcomes are correlated. The baseline fixes 30 % and breaks 10 %. Each line is a kind of candidate;
each cell pools 60, 200 and 500 tasks. A verdict is false if it is not true of new tasks of these repositories:
*improved* is true if one metric is better and the other not worse by the margin, *regressed* if one is worse.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _latest import record
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.comparison import MARGIN, family_levels
from regrade.evaluators.analysis.sample_size import Spread, tasks_needed
from regrade.evaluators.analysis.score_interval import ScoreRule
from regrade.evaluators.analysis.uncertainty import detectable_effect, difference_rule, over_repositories
from regrade.evaluators.analysis.verdicts import decide

Floats = NDArray[np.float64]

REPOSITORIES, TASKS = (2, 5, 6, 12, 40, 120), (60, 200, 500)
REPOSITORY, TASK = 0.5, 1.0
"""Standard deviations, on the probit scale, of how hard repositories and tasks are."""
FIX, BROKE = 0.3, 0.1
"""Rates of the baseline."""
PART = 10
"""Evaluations on the same repositories; then others are drawn."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A candidate, and what happens to its attempts."""

    fix: float = FIX
    broke: float = BROKE
    base_broke: float = BROKE
    attempts: int = 1
    varying: float = 0.0
    """Standard deviation between repositories of the candidate's effect, on the probit scale."""
    only_largest: bool = False
    unanswered: float = 0.0
    """Share of attempts, on both sides, lost before there was an answer."""
    lost: float = 0.0
    """Share of attempts, on both sides, lost later: at random, or those of the candidate that broke something."""
    lost_if_broke: bool = False
    candidates: int = 1


SCENARIOS = {
    "the baseline itself": Scenario(),
    "the same, four attempts a task": Scenario(attempts=4),
    "fixes 5 points more": Scenario(fix=FIX + 0.05),
    "breaks 5 points more": Scenario(broke=BROKE + 0.05),
    "reckless: fixes 15 more, breaks 10 more": Scenario(fix=FIX + 0.15, broke=BROKE + 0.10),
    "does nothing": Scenario(fix=0.0, broke=0.0),
    "fixes 30 more in the largest repository only": Scenario(fix=FIX + 0.30, only_largest=True),
    "better here, worse there, equal on average": Scenario(varying=0.3),
    "fixes 15 more, nobody breaks anything": Scenario(fix=FIX + 0.15, broke=0.0, base_broke=0.0),
    "rare breakage, equal (1 %)": Scenario(broke=0.01, base_broke=0.01),
    "rare breakage, 1 % against 4 %": Scenario(broke=0.04, base_broke=0.01),
    "equal, 1 % lost without an answer": Scenario(unanswered=0.01),
    "fixes 15 more, 1 % lost without an answer": Scenario(fix=FIX + 0.15, broke=0.02, base_broke=0.02, unanswered=0.01),
    "equal, 5 % lost at random": Scenario(lost=0.05),
    "breaks 5 more, 5 % lost because they broke": Scenario(broke=BROKE + 0.05, lost=0.05, lost_if_broke=True),
    "ten candidates like the baseline": Scenario(candidates=10),
}


@dataclass
class Count:
    """Sums over evaluations."""

    evaluations: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def share(self, name: str) -> float:
        return self.sums[name] / self.evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=120, help="simulated evaluations for each number of tasks")
    chosen = parser.parse_args()
    found: dict[str, Any] = {"runs": chosen.runs, "verdicts": {}, "coverage": {}, "power": {}}
    heading = f"{'':46}" + "".join(f"{count:>14}" for count in REPOSITORIES)
    print(f"improved / regressed, in %, of which false, by repositories\n{heading}")
    covered: dict[int, Count] = {count: Count() for count in REPOSITORIES}
    for name, scenario in SCENARIOS.items():
        cells = []
        for count in REPOSITORIES:
            whole = Count()
            for tasks in TASKS:
                simulate(scenario, count, tasks, chosen.runs, whole)
            if name != "does nothing" and scenario.candidates == 1 and not scenario.lost:
                add(covered[count], whole)
            cells.append({key: round(whole.share(key), 4) for key in VERDICTS})
        found["verdicts"][name] = dict(zip(map(str, REPOSITORIES), cells, strict=True))
        shown = (f"{100 * c['improved']:.1f} / {100 * c['regressed']:.1f}" for c in cells)
        print(f"{name:46}" + "".join(f"{text:>14}" for text in shown), flush=True)
        false = (f"{100 * c['false improved']:.1f} / {100 * c['false regressed']:.1f}" for c in cells)
        print(f"{'':34}{'false':12}" + "".join(f"{text:>14}" for text in false), flush=True)
    print(f"\nintervals of 95 % that hold the truth, in %\n{heading}")
    for name in COVERAGE:
        shares = [covered[count].share(name) for count in REPOSITORIES]
        found["coverage"][name] = dict(zip(map(str, REPOSITORIES), (round(x, 4) for x in shares), strict=True))
        print(f"{name:46}" + "".join(f"{100 * share:14.1f}" for share in shares))
    print(f"\npower in % where 80 % is promised\n{heading}")
    for name, cells in (("detectable", of_detectable), ("plan", of_plan)):
        for tasks in TASKS if name == "detectable" else (0,):
            shares = [cells(count, tasks, chosen.runs) for count in REPOSITORIES]
            label = f"{name}, {tasks} tasks" if tasks else f"{name}, for 10 points"
            found["power"][label] = dict(zip(map(str, REPOSITORIES), (round(x, 4) for x in shares), strict=True))
            print(f"{label:46}" + "".join(f"{100 * share:14.1f}" for share in shares), flush=True)
    record("levels", found)


VERDICTS = ("improved", "regressed", "false improved", "false regressed")
COVERAGE = ("clean fixes, these repositories", "breakage, these repositories", "clean fixes, other repositories")


def add(whole: Count, part: Count) -> None:
    whole.evaluations += part.evaluations
    for name, value in part.sums.items():
        whole.sums[name] += value


def simulate(scenario: Scenario, repositories: int, tasks: int, runs: int, count: Count, seed: int = 1) -> None:
    """Add so many evaluations to the count; a family of candidates is one evaluation."""
    rng = np.random.default_rng([seed, repositories, tasks])
    for _ in range(max(1, runs // PART)):
        drawn = Drawn(rng, scenario, repositories, tasks)
        for _ in range(min(PART, runs)):
            outcome = drawn.family() if scenario.candidates > 1 else drawn.single()
            count.evaluations += 1
            for name, value in outcome.items():
                count.sums[name] += value
        if scenario.candidates == 1:
            count.sums[COVERAGE[2]] += drawn.holds_elsewhere() * min(PART, runs)  # once for each draw of repositories


class Drawn:
    """Repositories, their difficulty, and the candidate's effect in each."""

    def __init__(self, rng: np.random.Generator, scenario: Scenario, repositories: int, tasks: int) -> None:
        self.rng, self.scenario = rng, scenario
        shares = np.exp(rng.normal(size=repositories))
        sizes = rng.multinomial(max(0, tasks - repositories), shares / shares.sum())
        sizes = sizes + (1 if tasks >= repositories else rng.permutation(repositories) < tasks)
        self.places = np.repeat(np.arange(repositories), sizes)
        ease, risk = rng.normal(0, REPOSITORY, size=(2, repositories))
        moved = rng.normal(0, scenario.varying, size=repositories)
        effect = np.full(repositories, _location(scenario.fix, scenario.varying))
        if scenario.only_largest:
            effect = np.where(np.arange(repositories) == np.argmax(sizes), effect, _location(FIX))
        self.fix = np.stack([_location(FIX) + ease, effect + ease + moved])[:, self.places]
        self.broke = np.stack([_location(scenario.base_broke) + risk, _location(scenario.broke) + risk])[:, self.places]
        scale = np.sqrt(1 + TASK**2)
        fixes, breaks = ndtr(self.fix / scale), ndtr(self.broke / scale)
        clean = fixes * (1 - breaks)
        self.clean_truth = float(np.mean(clean[1] - clean[0]))
        self.broke_truth = float(np.mean(breaks[1] - breaks[0]))
        elsewhere = scenario.fix * (1 - scenario.broke) - FIX * (1 - scenario.base_broke)
        self.elsewhere = self.clean_truth if scenario.only_largest else elsewhere

    def outcomes(self) -> Iterator[tuple[Floats, Floats]]:
        """Clean fixes and breakage of the baseline, and of the candidate, of shape (tasks, attempts)."""
        n = self.places.size
        shared = self.rng.normal(0, TASK, size=(2, n))
        for side in (0, 1):
            draws = self.rng.random((2, n, self.scenario.attempts))
            fix = draws[0] < ndtr(self.fix[side] + shared[0])[:, None]
            broke = draws[1] < ndtr(self.broke[side] + shared[1])[:, None]
            yield (fix & ~broke).astype(float), broke.astype(float)

    def single(self) -> dict[str, float]:
        (clean0, broke0), (clean1, broke1) = self.outcomes()
        missing = self._missing(broke0, is_candidate=False), self._missing(broke1, is_candidate=True)
        cleans, breaks = self._difference(clean0, clean1, missing), self._difference(broke0, broke1, missing)
        rules = difference_rule(cleans), difference_rule(breaks)
        verdict = self._verdict(*rules)
        if self.scenario.lost and verdict == "improved":
            worst = (
                self._difference(clean0, clean1, missing, (1.0, 0.0)),
                self._difference(broke0, broke1, missing, (0.0, 1.0)),
            )
            verdict = "inconclusive" if self._verdict(*map(difference_rule, worst)) != "improved" else verdict
        found = self._judged(verdict)
        found[COVERAGE[0]] = float(rules[0].contains(np.array([self.clean_truth]))[0])
        found[COVERAGE[1]] = float(rules[1].contains(np.array([self.broke_truth]))[0])
        return found

    def holds_elsewhere(self) -> bool:
        """Whether the interval for other repositories holds the truth, in one more evaluation."""
        (first, broke), (second, _) = self.outcomes()
        none = (np.zeros_like(broke, dtype=bool),) * 2
        low, high = over_repositories(self._difference(first, second, none))
        return bool(low <= self.elsewhere <= high)

    def family(self) -> dict[str, float]:
        """Verdicts of which there is at least one."""
        pairs = []
        for _ in range(self.scenario.candidates):
            (clean0, broke0), (clean1, broke1) = self.outcomes()
            none = np.zeros_like(clean0, dtype=bool), np.zeros_like(clean1, dtype=bool)
            differences = self._difference(clean0, clean1, none), self._difference(broke0, broke1, none)
            pairs.append(tuple(map(difference_rule, differences)))
        levels = family_levels({place: min(x.p() for x in pair) for place, pair in enumerate(pairs)})
        verdicts = [self._judged(self._verdict(*pair, levels[place])) for place, pair in enumerate(pairs)]
        return {name: max(one[name] for one in verdicts) for name in VERDICTS}

    def _missing(self, broke: Floats, is_candidate: bool) -> NDArray[np.bool_]:
        lost = self.rng.random(broke.shape) < self.scenario.unanswered + self.scenario.lost
        if self.scenario.lost_if_broke:
            share = self.scenario.lost / max(self.scenario.broke, 1e-9)
            lost = (self.rng.random(broke.shape) < share) & (broke == 1) & is_candidate
        return lost

    def _difference(
        self, first: Floats, second: Floats, missing: tuple[Any, Any], filled: tuple[float, float] = (np.nan, np.nan)
    ) -> Sample:
        sides = [np.where(lost, end, x) for x, lost, end in zip((first, second), missing, filled, strict=True)]
        known = [~np.isnan(x) for x in sides]
        means = [np.nansum(x, axis=1) / np.maximum(k.sum(axis=1), 1) for x, k in zip(sides, known, strict=True)]
        both = known[0].any(axis=1) & known[1].any(axis=1)
        return Sample.of((means[1] - means[0])[both], np.arange(both.sum()), self.places[both])

    def _verdict(self, clean: ScoreRule, broke: ScoreRule, confidence: float = 0.95) -> str:
        return decide(_ends(clean, confidence), _ends(broke, confidence), MARGIN).verdict

    def _judged(self, verdict: str) -> dict[str, float]:
        clean, broke = self.clean_truth, self.broke_truth
        is_better = (clean > 1e-9 and broke < MARGIN) or (broke < -1e-9 and clean > -MARGIN)
        is_worse = clean < -1e-9 or broke > 1e-9
        return {
            "improved": float(verdict == "improved"),
            "regressed": float(verdict == "regressed"),
            "false improved": float(verdict == "improved" and not is_better),
            "false regressed": float(verdict == "regressed" and not is_worse),
        }


def _ends(rule: ScoreRule, confidence: float) -> tuple[float, float]:
    """The ends as far as a verdict depends on them: whether they lie beyond 0 and the margin."""
    marks = np.array([-MARGIN, 0.0, MARGIN])
    out, tiny = marks[~rule.contains(marks, confidence)], 1e-9
    return (
        max((mark for mark in out if mark < rule.mean), default=-2.0) + tiny,
        min((mark for mark in out if mark > rule.mean), default=2.0) - tiny,
    )


def _location(rate: float, varying: float = 0.0) -> float:
    """Where a policy lies on the probit scale, for this mean rate."""
    return float(ndtri(rate)) * np.sqrt(1 + TASK**2 + REPOSITORY**2 + varying**2) if rate else -np.inf


def of_detectable(repositories: int, tasks: int, runs: int) -> float:
    """Share of the evaluations that show a true difference as large as evaluations like them call detectable."""
    effect = 0.1
    for _ in range(3):
        drawn = list(_fixes(effect, repositories, tasks, 40, seed=5))
        effect = float(np.median([detectable_effect(sample) for sample in drawn]))
    return _power(effect, repositories, tasks, runs)


def of_plan(repositories: int, _: int, runs: int) -> float:
    """Share of the evaluations that show 10 points, on as many tasks as the plan of an earlier evaluation asks for."""
    discordance = float(np.mean([np.mean(sample.values**2) for sample in _fixes(0.1, repositories, 200, 40, seed=6)]))
    needed = tasks_needed(Spread(discordance), 0.1)
    assert needed is not None
    return _power(0.1, repositories, needed, runs)


def _power(effect: float, repositories: int, tasks: int, runs: int) -> float:
    shown = []
    for sample in _fixes(effect, repositories, tasks, runs, seed=7):
        rule = difference_rule(sample)
        shown.append(rule.mean > 0 and not rule.contains(np.zeros(1))[0])
    return float(np.mean(shown))


def _fixes(effect: float, repositories: int, tasks: int, runs: int, seed: int) -> Iterator[Sample]:
    """Differences in fixes between policies that differ by `effect`."""
    rng = np.random.default_rng([seed, repositories, tasks])
    scenario = Scenario(fix=FIX + effect, broke=0.0, base_broke=0.0)
    for _ in range(max(1, runs // 4)):
        drawn = Drawn(rng, scenario, repositories, tasks)
        for _ in range(4):
            (first, _), (second, _) = drawn.outcomes()
            yield drawn._difference(first, second, (np.zeros_like(first, dtype=bool),) * 2)


if __name__ == "__main__":
    main()
