"""Rewards by name: built-in ones and those in a user's own file."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.rewards import Diff, EvidenceSet, default, load_reward, style

OWN = """
from __future__ import annotations
from dataclasses import dataclass
from regrade.rewards import Diff, Score, builds, complexity, impact, reward, style, tests, untampered
from neighbour import SCALE

@dataclass(frozen=True)
class Own:
    value: float

@reward
def small_diff(diff: Diff) -> Score:
    return Score(1 / (1 + diff.changed_lines / SCALE), why=f"{diff.changed_lines} lines changed")

@reward
def own(evidence: Own) -> Score:
    return Score(evidence.value)

fix_bug = (0.6 * tests + 0.2 * impact + 0.1 * style + 0.05 * complexity + 0.05 * small_diff).only_if(builds, untampered)
quality = 0.5 * style + 0.5 * small_diff
number = 3

def plain(diff: Diff) -> float:
    return 1.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("SCALE = 50\n")
    path = tmp_path / "rewards.py"
    path.write_text(OWN)
    return path


def test_built_in_rewards_have_names() -> None:
    assert load_reward("default") is default
    assert load_reward("style") is style


def test_a_reward_from_a_file_with_a_neighbour(file: Path) -> None:
    path_before, rewards_module = list(sys.path), sys.modules["regrade.rewards"]
    fix_bug = load_reward(f"{file}:fix_bug")
    assert {kind.__name__ for kind in fix_bug.needs} == {
        "TestRun",
        "Impact",
        "LintDelta",
        "ComplexityDelta",
        "Diff",
        "BuildRun",
        "Integrity",
    }
    small = load_reward(f"{file}:small_diff").evaluate(EvidenceSet({Diff: Diff(25, 25, ("a.py",))}))
    assert small.value == 0.5
    assert load_reward(f"{file}:quality").name == "quality"
    assert sys.path == path_before
    assert sys.modules["regrade.rewards"] is rewards_module
    assert "rewards" not in sys.modules


def test_a_changed_file_is_read_again(file: Path) -> None:
    assert load_reward(f"{file}:quality").name == "quality"
    file.write_text(OWN + "\nother = 1.0 * style\n")
    assert load_reward(f"{file}:other").name == "other"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nonsense", "unknown reward 'nonsense': choose one of default, tests, "),
        ("rewards.py", "FILE:NAME"),
        ("nowhere.py:x", "there is no file 'nowhere.py'"),
        (":x", "FILE:NAME"),
        ("{file}:", "names a file without a reward: pass .*rewards.py:NAME"),
        ("{file}:nothing", "has no 'nothing'; its rewards: .*fix_bug.*small_diff"),
        ("{file}:plain", "plain is a plain function: decorate it with @reward"),
        ("{file}:number", "number is 3, not a reward"),
        ("{folder}/text.txt:x", "its name must end in .py"),
        ("{folder}/broken.py:x", r"broken.py:2: SyntaxError"),
        ("{folder}/raising.py:x", r"raising.py:3: ZeroDivisionError"),
        ("{folder}/leaving.py:x", r"leaving.py:2: SystemExit: 0"),
        ("{folder}/stopping.py:x", r"stopping.py:1: BaseException: stop"),
        ("{folder}/untyped.py:x", "reward 'small'.*annotate it"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_one_line(file: Path, spec: str, said: str) -> None:
    (file.parent / "text.txt").write_text("x")
    (file.parent / "stopping.py").write_text("raise BaseException('stop')\n")
    (file.parent / "broken.py").write_text("x = 1\ndef f(:\n")
    (file.parent / "raising.py").write_text("x = 1\n\ny = 1 / 0\n")
    (file.parent / "leaving.py").write_text("import sys\nsys.exit(0)\n")
    (file.parent / "untyped.py").write_text("from regrade.rewards import reward\n@reward\ndef small(diff): ...\n")
    with pytest.raises(UserError, match=said) as caught:
        load_reward(spec.format(file=file, folder=file.parent))
    assert not re.search(r"\n", str(caught.value))


def test_a_relative_path_is_told_with_its_line(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file.parent / "raising.py").write_text("x = 1\n1 / 0\n")
    monkeypatch.chdir(file.parent)
    with pytest.raises(UserError, match=r"raising.py:2: ZeroDivisionError"):
        load_reward("raising.py:x")


def test_importing_the_rewards_runs_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "trl", "docker", "ray", "pandas", "subprocess", "tree_sitter", "radon"]
    code = f"import sys, regrade.rewards; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_without_a_name_is_told_which_rewards_it_holds(file: Path) -> None:
    for spec in (str(file), f"{file}:"):
        with pytest.raises(UserError, match=rf"names a file without a reward: pass {file}:NAME; .*fix_bug, .*quality"):
            load_reward(spec)


def test_a_reward_is_no_name() -> None:
    with pytest.raises(UserError, match="is not a reward's name"):
        load_reward(style)  # type: ignore[arg-type]
