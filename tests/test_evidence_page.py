"""docs/evidence.md: its tables are those of the code, and its examples work as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from regrade import rewards
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import Breakdown, load_reward
from regrade.rewards.conformance import check_reward
from regrade.rewards.evidence import Evidence
from tests import evidence_page

ROOT = Path(__file__).resolve().parent.parent
BEFORE, TEST = (
    "def add(a, b):\n    return a - b  # TODO\n",
    "from a import add\n\ndef test():\n    assert add(1, 2) == 3\n",
)


def test_the_tables_are_those_of_the_code() -> None:
    written = evidence_page.PAGE.read_text("utf-8")
    assert written == evidence_page.page(), "evidence changed: if that is meant, run python tests/evidence_page.py"


@pytest.mark.parametrize("kind", get_args(Evidence), ids=lambda kind: kind.__name__)
def test_every_type_of_evidence_and_each_of_its_fields_is_listed(kind: type) -> None:
    assert kind.__name__ in rewards.__all__
    page = evidence_page.page()
    section = page.partition(f"### {kind.__name__}\n")[2].partition("\n### ")[0]
    for field in fields(kind):
        assert re.search(rf"^\| `{field.name}` \| `[^`]+` \| \S", section, re.MULTILINE), field.name


def test_the_page_is_linked_where_rewards_are_explained() -> None:
    for page in ("README.md", "docs/rewards.md", "CONTRIBUTING.md"):
        assert "evidence.md" in (ROOT / page).read_text("utf-8"), page


Judge = Callable[[int, str, str], Breakdown]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    """`judge(example, name, code)`: the verdict of a reward of the page's example on a patch to this code."""
    examples = re.findall(r"^```python\n(.*?)^```", evidence_page.PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    root = tmp_path / "repository"
    root.mkdir()
    (root / "a.py").write_text(BEFORE)
    (root / "test_a.py").write_text(TEST)
    task = Task(
        id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=("test_a.py::test",), pass_to_pass=()
    )

    def judged(example: int, name: str, code: str) -> Breakdown:
        path = tmp_path / f"example{example}.py"
        path.write_text(examples[example])
        reward = load_reward(f"{path}:{name}")
        assert check_reward(reward, examples=20) == ()
        with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
            patch = Patch.between({"a.py": BEFORE}, {"a.py": code})
            return scorer.score([(task, patch)], reward)[0]

    return judged


def test_the_component_of_the_page_works(judge: Judge) -> None:
    assert judge(0, "careful", "def add(a, b):\n    return a + b\n").value == 1.0
    noisy = judge(0, "careful", "def add(a, b):\n    print(a)\n    return a + b  # noqa\n")
    assert noisy.value == pytest.approx(0.8 + 0.2 / 3)
    assert "shortcuts in a.py:2, a.py:3" in str(noisy)


def test_the_evidence_of_the_page_works(judge: Judge) -> None:
    assert judge(1, "no_new_todo", "def add(a, b):\n    return a + b\n").parts[0].why == "1 -> 0"
    assert judge(1, "no_new_todo", "# TODO\ndef add(a, b):\n    return a + b  # TODO\n").value == 0.0
