import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from regrade import rewards
from regrade.datasets.episodes import Episode, EpisodeEnd, SeenTests, Step
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators.analysis.agent_metrics import agent_figures, episode_ends
from regrade.evaluators.analysis.comparison import compare
from regrade.evaluators.analysis.figures import figures
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.evaluation.step_measurement import measure_steps
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.episode_file import EpisodeFile, episodes_path
from regrade.evaluators.storage.rows import load_rows
from regrade.evaluators.storage.step_effects import MeasuredSteps, load_steps, steps_path
from regrade.rewards.evidence import EvidenceSet, TestRun

BASE = "def total(prices):\n    return sum(prices) - 1\n\n\ndef label(price):\n    return f'{price:.2f}'\n"
TESTS = """\
import shop
def test_total(): assert shop.total([1, 2]) == 3
def test_one(): assert shop.label(2) == '2.00'
def test_two(): assert shop.label(3) == '3.00'
"""
FIXED = BASE.replace(" - 1", "")
ONE, TWO = "test_shop.py::test_one", "test_shop.py::test_two"


def patch_to(text: str) -> Patch:
    return Patch.between({"shop.py": BASE}, {"shop.py": text}) if text != BASE else Patch("")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = tmp_path_factory.mktemp("shop")
    (root / "shop.py").write_text(BASE)
    (root / "test_shop.py").write_text(TESTS)
    return Task(
        id="shop/total",
        repository="shop",
        base=Tree(root),
        instruction="Mend the total.",
        fail_to_pass=("test_shop.py::test_total",),
        pass_to_pass=(ONE, TWO),
        suite=TestSuite(),
        limits=Limits(wall_seconds=5),
    )


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Scorer(workers=1, cache=tmp_path_factory.mktemp("cache")) as scorer:
        yield scorer


class CountingScorer:
    """A scorer that counts the jobs it is given, and loses those of one patch."""

    def __init__(self, scorer: Scorer, lost: str = "") -> None:
        self.scorer, self.lost, self.jobs = scorer, lost, 0

    def gather(self, jobs: Sequence[tuple[Task, Patch]], needs: Collection[type]) -> list[EvidenceSet]:
        self.jobs += len(jobs)
        found = self.scorer.gather(jobs, needs)
        gone = EvidenceSet({}, {TestRun: "the disk is full"})
        return [gone if patch.digest == self.lost else one for (_, patch), one in zip(jobs, found, strict=True)]


def episode(*states: str | SeenTests, end: EpisodeEnd = EpisodeEnd.SUBMITTED) -> Episode:
    """An episode through these texts of shop.py; a text that was there before is an undo."""
    steps, patch, seen, patches = [], patch_to(BASE), [BASE], {}
    for state in states:
        if isinstance(state, SeenTests):
            steps.append(Step("run_tests", {}, "ran", 0.1, patch_digest=patch.digest, tests=state))
            continue
        patch = patch_to(state)
        tool = "undo" if state in seen else "edit"
        seen.append(state)
        steps.append(Step(tool, {}, "ok", 0.1, is_change=True, patch_digest=patch.digest))
        patches[patch.digest] = patch
    return Episode("shop/total", "Mend the total.", tuple(steps), patch, end, 50, patches)


RED, GREEN = SeenTests(0, ("t",), 0, "boom"), SeenTests(3, (), 0)
BREAKS_LABEL = FIXED.replace("price:.2f", "price:.3f")
CRASHES = "import os\nos._exit(3)\n"
EPISODES = (
    episode(BREAKS_LABEL, RED, FIXED, GREEN),  # breaks two tests, and mends them by another edit
    episode(FIXED, BREAKS_LABEL, end=EpisodeEnd.TURNS),  # hands the breakage in, untested
    episode(CRASHES, RED, BASE, FIXED, GREEN),  # stops the run, and takes it back
    episode(),
)


def rollouts(episodes: Sequence[Episode | None], policy: str = "agent") -> list[Rollout]:
    return [
        Rollout(
            task_id="shop/total",
            policy=policy,
            temperature=1.0,
            sample=sample,
            seed=0,
            patch=patch_to(FIXED) if each is None else each.patch,
            episode=each,
        )
        for sample, each in enumerate(episodes)
    ]


def of_samples(steps: dict[tuple[Any, ...], MeasuredSteps]) -> list[list[tuple[Any, ...]]]:
    ordered = sorted(steps.values(), key=lambda each: each.sample)
    return [
        [(c.step, c.fixed, c.unfixed, c.broken, c.restored, c.end, c.is_kept) for c in each.changes] for each in ordered
    ]


def test_the_full_suite_says_what_each_change_did_and_equal_trees_run_once(
    task: Task, scorer: Scorer, tmp_path: Path
) -> None:
    out = tmp_path / "agent.jsonl"
    rows = evaluate(rollouts(EPISODES), [task], scorer, rewards.tests, out)
    assert [*rows["turns"]] == [4, 2, 5, 0]
    assert [*rows["tested_at_end"]] == [1, 0, 1, 0]
    assert [*rows["taken_back"]] == [0, 0, 1, 0]
    assert [*rows["episode_end"]] == ["submitted", "out of turns", "submitted", "submitted"]
    assert rows["breaking_edits"].isna().all()
    assert EpisodeFile(episodes_path(out)).get(rows.iloc[2].to_dict()) == EPISODES[2]

    lossy = CountingScorer(scorer, lost=patch_to(CRASHES).digest)
    first = measure_steps(out, [task], lossy)
    assert (first.attempts, first.trees, first.unknown, lossy.jobs) == (4, 3, 1, 3)  # the base is known
    counting = CountingScorer(scorer)
    again = measure_steps(out, [task], counting)
    assert (again.unknown, counting.jobs) == (0, 2)  # only the attempt with a lost tree
    assert measure_steps(out, [task], counting).trees == 0

    steps = load_steps(steps_path(out))
    assert of_samples(steps) == [
        [(0, 1, 0, 2, 0, "", False), (2, 0, 0, 0, 2, "", False)],
        [(0, 1, 0, 0, 0, "", False), (1, 0, 0, 2, 0, "", True)],
        [(0, 0, 0, 2, 0, "crashed", False), (2, 0, 0, 0, 2, "", False), (3, 1, 0, 0, 0, "", False)],
        [],
    ]
    assert next(iter(steps.values())).changes[0].tests == (ONE, TWO)
    rows = load_rows(out)
    assert [*rows["breaking_edits"]] == [1, 1, 1, 0]
    assert [*rows["breaking_edits_kept"]] == [0, 1, 0, 0]
    found = agent_figures(rows)
    assert found["broke_on_the_way"].value == pytest.approx(0.75)
    assert found["breakage_taken_back"].value == pytest.approx(2 / 3)
    assert episode_ends(rows) == {"submitted": 3, "out of turns": 1}
    assert figures(rows)["agent"]["turns"]["value"] == pytest.approx(2.75)


def test_a_policy_that_answers_once_gets_no_files_and_no_columns(task: Task, scorer: Scorer, tmp_path: Path) -> None:
    out = tmp_path / "model.jsonl"
    rows = evaluate(rollouts([None, None]), [task], scorer, rewards.default, out)
    assert not episodes_path(out).exists()
    assert "turns" not in json.loads(out.read_text().splitlines()[0])
    assert agent_figures(rows) == {}
    assert "agent" not in figures(rows)
    before = out.read_bytes()
    assert measure_steps(out, [task], CountingScorer(scorer)).attempts == 0
    assert out.read_bytes() == before
    assert not steps_path(out).exists()


def test_an_attempt_that_is_made_again_loses_its_effects(task: Task, scorer: Scorer, tmp_path: Path) -> None:
    out = tmp_path / "agent.jsonl"
    evaluate(rollouts(EPISODES[:2]), [task], scorer, rewards.tests, out)
    measure_steps(out, [task], CountingScorer(scorer))
    again = replace(rollouts(EPISODES[1:2])[0], sample=0)  # another answer of the first attempt
    evaluate([again], [task], scorer, rewards.tests, out)
    assert load_rows(out).set_index("sample")["breaking_edits"].isna().to_dict() == {0: True, 1: False}
    assert measure_steps(out, [task], CountingScorer(scorer)).attempts == 2
    assert of_samples(load_steps(steps_path(out)))[0] == [(0, 1, 0, 0, 0, "", False), (1, 0, 0, 2, 0, "", True)]
    assert [*load_rows(out).sort_values("sample")["breaking_edits_kept"]] == [1, 1]


def test_steps_of_another_version_of_the_task_are_left_out(task: Task, scorer: Scorer, tmp_path: Path) -> None:
    out = tmp_path / "agent.jsonl"
    evaluate(rollouts(EPISODES[:1]), [task], scorer, rewards.tests, out)
    other = replace(task, pass_to_pass=(ONE,))
    measured = measure_steps(out, [other], CountingScorer(scorer))
    assert (measured.attempts, measured.without_task) == (0, 1)


def test_agents_are_compared_by_how_they_work_and_the_other_figures_stay(
    task: Task, scorer: Scorer, tmp_path: Path
) -> None:
    rows = evaluate(rollouts(EPISODES), [task], scorer, rewards.tests, tmp_path / "a.jsonl")
    several = [rows.assign(task=f"t{n}", function=f"f{n}", policy=name) for n in range(8) for name in ("a", "b")]
    first = pd.concat([one for one in several if one["policy"].iloc[0] == "a"])
    second = pd.concat([one for one in several if one["policy"].iloc[0] == "b"]).assign(turns=lambda x: x["turns"] + 2)
    with_agents = compare(first, second).metrics
    plain = compare(first.assign(turns=float("nan")), second).metrics
    assert with_agents["turns"].difference == pytest.approx(2)
    assert "tested_at_end" in with_agents
    assert "turns" not in plain
    assert all(with_agents[name] == one for name, one in plain.items())
