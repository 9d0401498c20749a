"""Verdicts of whole comparisons: simulated evaluations with known truth, and executed patches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Limits, Target, Task, Tree
from regrade.evaluators.analysis import metrics
from regrade.evaluators.analysis.clustered_means import Sample
from regrade.evaluators.analysis.comparison import Comparison, compare
from regrade.evaluators.analysis.differences import noise_level
from regrade.evaluators.analysis.uncertainty import difference_interval, rate_interval, task_means
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.rows import COLUMNS, FLAGS, INTEGERS, LISTS, NUMBERS, OPTIONAL
from regrade.rewards import resolved


class Population:
    """Tasks of repositories of unequal size, as hard and as risky as their repository is, and each in its own way."""

    def __init__(self, rng: np.random.Generator, repositories: int, largest: int = 12) -> None:
        self.rng = rng
        self.places = np.repeat(np.arange(repositories), rng.integers(3, largest, size=repositories))
        self.ease, self.risk = self._varying(), self._varying()

    def _varying(self) -> np.ndarray:
        """Factors around 1: what tasks of one repository share, and what each has by itself."""
        shared = self.rng.uniform(0.5, 1.5, size=self.places.max() + 1)[self.places]
        return shared * self.rng.uniform(0.2, 1.8, size=self.places.size)

    def attempts(self, policy: str, fix: float, broke: float, seeds: int = 2, *, empty: bool = False) -> pd.DataFrame:
        """Rows of a policy with these mean rates."""
        tasks = np.repeat(np.arange(self.places.size), seeds)
        fixed = self.rng.random(tasks.size) < np.clip(fix * self.ease[tasks], 0, 1)
        broken = self.rng.random(tasks.size) < np.clip(broke * self.risk[tasks], 0, 1)
        places = self.places[tasks]
        known = {
            "policy": policy, "task": [f"t{n}" for n in tasks], "repository": [f"r{n}" for n in places],
            "function": [f"m.py::f{n}" for n in tasks], "seed": 0,
            "sample": np.tile(np.arange(seeds), self.places.size), "empty": empty, "well_formed": True, "applied": True, "status": "scored",
            "reward": fixed * 1.0, "fix": fixed * 1.0, "fail_to_pass": 1.0, "fixed": fixed * 1.0, "guarded": 100.0,
            "broken": broken * 1.0, "newly_skipped": 0.0, "broke": broken * 1.0, "clean_fix": (fixed & ~broken) * 1.0,
        }  # fmt: skip
        rest = {name: "" for name in COLUMNS if name not in (*NUMBERS, *FLAGS, *INTEGERS, *LISTS)}
        rest |= dict.fromkeys(NUMBERS, 0.0) | dict.fromkeys((*LISTS, *OPTIONAL))
        return pd.DataFrame(rest | known)


def comparisons(repetitions: int, repositories: int, *rates: float, empty: bool = False) -> Iterator[Comparison]:
    """A baseline that fixes 30 % and breaks 10 %, against a policy with these rates, on so many sets of tasks."""
    rng = np.random.default_rng(11)
    for _ in range(repetitions):
        tasks = Population(rng, repositories)
        baseline, candidate = tasks.attempts("sft", 0.3, 0.1), tasks.attempts("rl", *rates, empty=empty)
        yield compare(baseline, candidate)


def verdicts(found: Iterator[Comparison]) -> list[str]:
    return [each.verdict for each in found]


@pytest.mark.parametrize("repositories", [40, 6])
def test_the_baseline_against_itself_is_rarely_anything(repositories):
    """The stated level: improved at most once in 20, regressed at most once in 20."""
    found = verdicts(comparisons(20, repositories, 0.3, 0.1))
    assert found.count("improved") <= 1
    assert found.count("regressed") <= 1


@pytest.mark.slow
def test_false_verdicts_stay_at_their_level():
    """At most 5 % each: a count that is likely at this level, with a chance of 1 in 100 to be exceeded."""
    found = verdicts(comparisons(60, 35, 0.3, 0.1))
    most = stats.binom.ppf(0.99, len(found), 0.05)
    assert found.count("improved") <= most
    assert found.count("regressed") <= most
    assert "not comparable" not in found


@pytest.mark.parametrize("repositories", [40, 12])
def test_a_reckless_policy_is_judged_regressed(repositories):
    """It fixes many more, and breaks many more."""
    found = list(comparisons(10, repositories, 0.5, 0.35))
    assert [each.verdict for each in found] == ["regressed"] * len(found)
    assert all(each.metrics["fix_rate"].difference > 0.05 for each in found)
    assert "breaks more" in found[0].reason


def test_a_policy_that_does_nothing_is_never_judged_improved():
    found = list(comparisons(10, 40, 0.0, 0.0, empty=True))
    assert [each.verdict for each in found] == ["regressed"] * len(found)
    assert all(each.metrics["breakage_incidence"].verdict == "better" for each in found)
    assert all(each.metrics["no_op_rate"].candidate == 1 for each in found)


def test_doing_nothing_does_not_win_against_a_baseline_that_fixes_next_to_nothing():
    rng = np.random.default_rng(3)
    for _ in range(10):
        tasks = Population(rng, 40)
        found = compare(tasks.attempts("sft", 0.02, 0.2), tasks.attempts("no-op", 0.0, 0.0, empty=True), margin=0.0)
        assert found.verdict != "improved"


def test_the_noise_level_holds_19_of_20_differences_of_a_policy_from_itself():
    rng = np.random.default_rng(5)
    tasks = Population(rng, 40)
    inside = []
    for _ in range(200):
        first, second = tasks.attempts("a", 0.3, 0.1), tasks.attempts("b", 0.3, 0.1)
        difference = second["fix"].mean() - first["fix"].mean()
        inside.append(abs(difference) <= noise_level(first, metrics.FIX_RATE))
    assert 0.91 <= np.mean(inside) <= 0.99  # 3 standard errors of 200 runs
    assert noise_level(tasks.attempts("a", 0.3, 0.1, seeds=1), metrics.FIX_RATE) is None
    few = noise_level(first, metrics.FIX_RATE, attempts=1)
    assert few == pytest.approx(noise_level(first, metrics.FIX_RATE) * np.sqrt(1.5))


@pytest.mark.parametrize("repositories", [30, 6, 2], ids=lambda n: f"{n} repositories")
def test_intervals_of_evaluations_hold_the_truth_as_often_as_they_say(repositories):
    """1,000 simulated evaluations: 93 to 97 of 100 intervals of 95 % hold the true difference in these repositories, and
    the true rate. Repositories are drawn once, and differ in how much the candidate gains."""
    rng = np.random.default_rng(21)
    places = np.repeat(np.arange(repositories), rng.integers(40, 160, size=repositories) // repositories + 3)
    shared = rng.beta(1.2, 2.8, size=repositories)
    gains = np.clip(rng.normal(0.05, 0.05, size=repositories), -shared, 1 - shared)
    runs, covered, rates = 1000, 0, 0
    for _ in range(runs):
        outcomes = rng.binomial(2, shared[places]) / 2, rng.binomial(2, (shared + gains)[places]) / 2
        tasks = np.arange(places.size)
        low, high = difference_interval(Sample.of(outcomes[1] - outcomes[0], tasks, places))
        covered += low <= gains[places].mean() <= high
        low, high = rate_interval(Sample.of(outcomes[0], tasks, places))
        rates += low <= shared[places].mean() <= high
    assert 0.93 <= covered / runs <= 0.97
    assert 0.93 <= rates / runs <= 0.97


def test_the_whole_way_from_rows_to_an_interval_is_that_of_its_parts():
    tasks = Population(np.random.default_rng(6), 40)
    first, second = tasks.attempts("a", 0.3, 0.1), tasks.attempts("b", 0.4, 0.1)
    means = [task_means(rows, rows["broke"]) for rows in (first, second)]
    sample = Sample.of_tasks(means[0], means[1]["value"] - means[0]["value"])
    whole = compare(first, second)
    found = whole.metrics["breakage_incidence"]
    assert (found.low, found.high) == difference_interval(sample)
    assert (found.n_tasks, found.n_clusters) == (tasks.places.size, tasks.places.size)
    assert (whole.n_repositories, whole.clusters) == (40, "function")


# ------------------------------------------------------------ the same with patches that are run

COUNT = 8
GOOD = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(COUNT))
TESTS = "import m\n\n\n" + "".join(f"def test_f{n}():\n    assert m.f{n}(1) == {n + 1}\n\n\n" for n in range(COUNT))


def planted(number: int) -> str:
    return GOOD.replace(f"x + {number}\n", f"x - {number} - 1\n")


def answer(number: int, kind: str) -> Patch:
    """`fix`; `fix and break` (the next function too); anything else changes nothing."""
    after = GOOD if "fix" in kind else planted(number)
    if "break" in kind:
        after = after.replace(f"x + {(number + 1) % COUNT}\n", "None\n")
    return Patch.between({"m.py": planted(number)}, {"m.py": after})


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    root: Path = tmp_path_factory.mktemp("repository")
    (root / "m.py").write_text(GOOD)
    (root / "test_m.py").write_text(TESTS)
    names = [f"test_m.py::test_f{n}" for n in range(COUNT)]
    tasks = [
        Task(
            id=f"task{n}",
            repository="repository",
            base=Tree(root, {"m.py": planted(n)}),
            instruction="",
            fail_to_pass=(names[n],),
            pass_to_pass=tuple(name for name in names if name != names[n]),
            limits=Limits(wall_seconds=20),
            target=Target("m.py", f"f{n}", 1, 2),
            reference=answer(n, "fix"),
        )
        for n in range(COUNT)
    ]
    policies = {"careful": ["fix"] * 4 + ["nothing"] * 4, "reckless": ["fix and break"] * 8, "no-op": ["nothing"] * 8}
    with Scorer(workers=2, cache=tmp_path_factory.mktemp("cache")) as scorer:
        return {
            name: evaluate(
                [Rollout(task_id=f"task{n}", policy=name, temperature=0.0, sample=0, seed=1, patch=answer(n, kind)) for n, kind in enumerate(kinds)],
                tasks, scorer, resolved,
            )
            for name, kinds in policies.items()
        }  # fmt: skip


def test_a_reckless_policy_that_is_really_run_is_judged_regressed(rows):
    found = compare(rows["careful"], rows["reckless"])
    assert metrics.fix_rate(rows["reckless"]).value == 1.0
    assert metrics.breakage_incidence(rows["reckless"]).value == 1.0
    assert found.verdict == "regressed"
    assert "breaks more" in found.reason
    assert compare(rows["reckless"], rows["careful"]).decision.breaking.kind == "better"


def test_doing_nothing_that_is_really_run_is_not_judged_improved(rows):
    assert compare(rows["careful"], rows["no-op"]).verdict == "no difference shown"  # 4 tasks of 8: too few to tell
    against = compare(rows["reckless"], rows["no-op"])
    assert against.metrics["breakage_incidence"].verdict == "better"
    assert against.metrics["fix_and_clean"].difference == 0
    assert against.words == "inconclusive (breaks less, non-inferiority on fixes not shown)"


def test_side_effects_are_recorded_with_the_rows(rows):
    reckless = rows["reckless"]
    assert (reckless["touches_function"] == 1).all()
    assert reckless["off_file"].tolist() == [0.0] * COUNT
    assert reckless["off_function"].tolist() == [0.5] * COUNT
    assert reckless["broken_hops"].tolist() == [[1]] * COUNT
    assert (reckless["built"] == 1).all()
    assert rows["no-op"]["broken_hops"].tolist() == [[]] * COUNT
    assert rows["no-op"]["touches_file"].isna().all()
