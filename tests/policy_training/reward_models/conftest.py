"""A repository with many small functions, patches for them, and a tiny reward model that learned from these."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Target, Task, Tree
from regrade.evaluators.storage.labelled_attempts import Component, LabelledAttempt, PatchOrigin, proposed
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.reward_models.training import train_reward_model
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import RewardModelSettings

FUNCTIONS = 12
SETTINGS = RewardModelSettings(input_tokens=384, members=3)
RIGHT, WRONG, BREAKING = "return number + {n}", "return number - {n} - {n}", "raise SystemExit({n})"


def source(n: int, body: str | None = None) -> str:
    return f"def add_{n}(number):\n    {body or f'return number - {n}'}\n"


def task_of(root: Path, n: int) -> Task:
    return Task(
        id=f"add-{n}", repository="sums", base=Tree(root), instruction=f"`add_{n}` must add {n}.",
        fail_to_pass=(f"test_{n}.py::test",), pass_to_pass=(), target=Target(f"sum_{n}.py", f"add_{n}", 1, 2),
        failure=f"assert {1 - n} == {1 + n}",
    )  # fmt: skip


def patch_of(task: Task, body: str) -> Patch:
    n = int(task.id.removeprefix("add-"))
    return Patch.between({f"sum_{n}.py": source(n)}, {f"sum_{n}.py": source(n, body.format(n=n))})


def attempt_of(task: Task, body: str, **labels: bool) -> LabelledAttempt:
    is_clean = body == RIGHT
    known = {Component.CLEAN: is_clean, Component.FIXES: is_clean, Component.BREAKS: body == BREAKING}
    return LabelledAttempt(
        **vars(proposed(task, patch_of(task, body))),
        labels=known | {Component(name): value for name, value in labels.items()},
        reward=1.0 if is_clean else -1.2 if body == BREAKING else 0.0,
        origin=PatchOrigin.SAMPLED,
        policy="scripted",
    )


@pytest.fixture(scope="session")
def sums(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Tasks at functions of one repository; a module uses the first function."""
    root = tmp_path_factory.mktemp("sums")
    for n in range(FUNCTIONS):
        (root / f"sum_{n}.py").write_text(source(n))
        (root / f"test_{n}.py").write_text(
            f"from sum_{n} import add_{n}\n\n\ndef test():\n    assert add_{n}(1) == 1\n"
        )
    (root / "totals.py").write_text(
        "from sum_0 import add_0\n\n\ndef total(items):\n    return sum(map(add_0, items))\n"
    )
    return [task_of(root, n) for n in range(FUNCTIONS)]


@pytest.fixture(scope="session")
def attempts(sums: list[Task]) -> list[LabelledAttempt]:
    return [attempt_of(task, body) for task in sums for body in (RIGHT, WRONG, BREAKING)]


@pytest.fixture(scope="module")
def model_folder(base_folder: Path, attempts: list[LabelledAttempt], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained reward model."""
    out = tmp_path_factory.mktemp("models") / "judge"
    train_reward_model(str(base_folder), attempts, SETTINGS, out=out, budget=Budget(steps=1), seed=0)
    return out


@pytest.fixture(scope="session")
def base_folder(tokenizer: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny language model with random weights."""
    from tests.policy_training.conftest import untrained

    return untrained(tokenizer).save(tmp_path_factory.mktemp("bases") / "tiny")  # type: ignore[arg-type]


@pytest.fixture
def base(base_folder: Path) -> LanguageModel:
    from regrade.policy_training.policies.models import load_model

    return load_model(str(base_folder), device="cpu")
