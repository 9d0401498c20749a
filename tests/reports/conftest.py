"""A small run with real rows: twelve one-function tasks of two repositories, scored by really running their tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Limits, Target, Task, Tree
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.rewards import Score, reward, small_diff
from regrade.rewards.evidence import TestRun

TASKS = 12
GOOD = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(TASKS))
TESTS = "import m\n\n\n" + "".join(f"def test_f{n}():\n    assert m.f{n}(1) == {n + 1}\n\n\n" for n in range(TASKS))


@reward
def kept(run: TestRun) -> Score:
    return Score(float(run.resolved), why=f"{len(run.fixed)} fixed & {len(run.broken)} <broken>")


def broken(number: int) -> str:
    """The module with the bug of one task."""
    return GOOD.replace(f"x + {number}\n", f"x - {number} - 1\n")


def answer(number: int, kind: str) -> Patch:
    """`fix`, `fix and break` (a neighbour), `break`, or `nothing`."""
    before = after = broken(number)
    if "fix" in kind:
        after = GOOD
    if "break" in kind:
        neighbour = f"def f{(number + 1) % TASKS}(x):\n    return "
        after = after.replace(f"{neighbour}x +", f"{neighbour}'<b>' *")
    return Patch.between({"m.py": before}, {"m.py": after})


POLICIES = {
    # name: role, best temperature, label, what it answers by task at temperature 0
    "sft": ("baseline", 0.0, "SFT", ["fix"] * 3 + ["fix and break"] + ["break"] * 2 + ["nothing"] * 6),
    "control": ("control", 0.0, "SFT, equal time", ["fix"] * 3 + ["break"] * 3 + ["nothing"] * 6),
    "rl": ("candidate", 0.7, "Expert iteration", ["nothing"] + ["fix"] * 8 + ["break"] + ["nothing"] * 2),
    "no-op": ("scripted", 0.0, "Does nothing", ["nothing"] * 12),
}


def tasks_in(root: Path) -> list[Task]:
    (root / "m.py").write_text(GOOD)
    (root / "test_m.py").write_text(TESTS)
    names = [f"test_m.py::test_f{n}" for n in range(TASKS)]
    return [
        Task(
            id=f"task-{n:02d}",
            repository=f"repo{n % 2}",
            base=Tree(root, {"m.py": broken(n)}),
            instruction="",
            fail_to_pass=(names[n],),
            pass_to_pass=tuple(name for name in names if name != names[n]),
            limits=Limits(wall_seconds=20),
            target=Target("m.py", f"f{n}", 1, 2),
            failure=f"assert m.f{n}(1) == {n + 1}",
            reference=answer(n, "fix"),
        )
        for n in range(TASKS)
    ]


def rollouts(name: str, answers: list[str]) -> Iterator[Rollout]:
    for number, kind in enumerate(answers):
        yield Rollout(
            task_id=f"task-{number:02d}",
            policy=name,
            temperature=0.0,
            sample=0,
            seed=1,
            patch=answer(number, kind),
            completion=kind,
        )
    if name == "no-op":
        return
    for number, kind in enumerate(answers):
        for sample in range(2):
            yield Rollout(
                task_id=f"task-{number:02d}",
                policy=name,
                temperature=0.7,
                sample=sample,
                seed=1,
                patch=answer(number, kind if sample else "nothing"),
            )


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder; copy it before changing it."""
    tasks = tasks_in(tmp_path_factory.mktemp("repo"))
    run = Run(tmp_path_factory.mktemp("runs") / "small")
    run.update(model="scripted", seeds={"evaluation": 1}, configuration={"rl": {"steps": 3}})
    run.record_tasks(tasks)
    with Scorer(workers=2, cache=tmp_path_factory.mktemp("cache")) as scorer:
        for name, (role, best, label, answers) in POLICIES.items():
            run.add_policy(name, role, best_temperature=best, label=label)
            with run.phase(f"evaluation of {name}"):
                evaluate(rollouts(name, answers), tasks, scorer, 0.9 * kept + 0.1 * small_diff, run.evaluation(name))
    for step in range(3):
        run.log(
            "rl",
            step,
            step * 2.0,
            reward=0.1 * step,
            entropy=0.5,
            execution_seconds=1.0,
            generation_seconds=2.0,
            training_seconds=1.0,
            loss=float("nan") if step == 1 else 0.1,
        )
    return run.folder
