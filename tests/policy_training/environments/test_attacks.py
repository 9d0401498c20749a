"""An agent that means harm: whatever it writes into its tools, nothing outside of the repository is reached or told."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.applying import apply_patch
from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Shown, Task, Tree
from regrade.evaluators.sandboxes.base import Program, SandboxError
from regrade.evaluators.sandboxes.process import Process, TreeSession
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.trl import ExecutedOutcome
from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
from regrade.policy_training.environments.edited_tree import EditedTree, ToolMistakeError
from regrade.policy_training.environments.search_patterns import compiled
from regrade.policy_training.environments.tool_calls import call_tool
from regrade.rewards.evidence import Integrity
from regrade.rewards.evidence import TestRun as RunOfTests

SECRET = "secret-a8f3"


@pytest.fixture
def hostile(tmp_path: Path) -> Tree:
    """A tree with links out of it, a pipe, a virtual environment, git's own folders, and a file of 100 MB."""
    outside, root = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "passwd").write_text(f"{SECRET}\n")
    for folder in (".git", "vendored/.git", "environment", "data", "sub"):
        (root / folder).mkdir(parents=True)
        (root / folder / "config").write_text(f"{SECRET}\n")
    (root / "environment" / "pyvenv.cfg").write_text("home = /usr\n")
    for folder in ("data", "sub"):
        (root / folder / "config").write_text("open\n")
    (root / "a.py").write_text("x = 1\n")
    (root / "bytes.txt").write_bytes(b"caf\xe9\r\n")
    (root / "link").symlink_to(outside)
    (root / "linked.txt").symlink_to(outside / "passwd")
    (root / "sub" / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    with (root / "huge.bin").open("wb") as file:
        file.truncate(100_000_000)
    return Tree(root)


OUTSIDE = [
    "link/passwd", "link/new.py", "linked.txt", "sub/up/a.py", "pipe", "pipe/x", "../outside/passwd", "/etc/passwd",
    "sub/../../outside/passwd", ".git/config", ".git", ".GIT/config", ".Git/hooks/x", "vendored/.git/config", "sub/.git",
    "environment/config", "environment/lib/x.py", ".venv/lib/x.py", "node_modules/x.js", "__pycache__/a.cpython-311.pyc",
    "a.pyc", "sub", "a.py/x", "a//b", "./b", "b/", "", ".", "..", "nul\0", "new\nline", "\x1b[2J", "a\u2028b", "\u202eb.py",
    "\ud800", "caf\udce9", "x" * 256, "é" * 200, "d/" * 600 + "x", "~root/../../x",
]  # fmt: skip
"""Places where no file may be created."""
INSIDE = [
    " a.py",
    "a b.py",
    'a"b.py',
    "a\\b.py",
    "-rf",
    "$HOME",
    "~",
    "．．/x",
    "..／x",
    "C:\\x",
    "A.PY",
    "é.py",
    "d/e/f/g.py",
]
"""Odd names of files in the repository."""


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_is_created_or_read_outside_of_the_repository(hostile: Tree, path: str) -> None:
    tree = EditedTree(hostile, lambda _: False)
    for act in (lambda: tree.write(path, "x = 2\n"), lambda: tree.read(path), lambda: tree.write(path, None)):
        with pytest.raises(ToolMistakeError) as mistake:
            act()
        assert SECRET not in str(mistake.value)
    assert tree.patch.is_empty


@pytest.mark.parametrize("path", INSIDE)
def test_odd_names_stay_in_the_repository_and_their_patch_applies(hostile: Tree, path: str) -> None:
    tree = EditedTree(hostile, lambda _: False)
    tree.write(path, "x = 2\n")
    assert apply_patch(hostile, tree.patch).read(path) == "x = 2\n"
    assert tree.read(path) == "x = 2\n"
    assert tree.undo()
    assert tree.patch.is_empty


def test_odd_texts_either_apply_or_are_mistakes(hostile: Tree) -> None:
    tree = EditedTree(hostile, lambda _: False)
    texts = [
        "",
        "\r",
        "a\rb\r\n",
        "a\0b",
        "\x0c\u2028\x85\n",
        "\udce9",
        "\ufeffx",
        "no newline",
        "+++ b/x\n@@ -1 +1 @@\n",
    ]
    for text in texts:
        for path in ("a.py", "bytes.txt", "new.py"):
            tree.write(path, text)
            assert apply_patch(hostile, tree.patch).read(path) == text, (path, text)
    with pytest.raises(ToolMistakeError, match="surrogate"):
        tree.write("a.py", "\ud800")
    for path in ("a.py", "bytes.txt"):
        tree.write(path, None)
        assert apply_patch(hostile, tree.patch).read_or_none(path) is None
    while tree.undo():
        pass
    assert tree.patch == Patch("")
    assert tree.read("bytes.txt") == "caf\udce9\r\n"


def test_a_file_of_100_mb_is_neither_opened_nor_searched_nor_deleted(hostile: Tree) -> None:
    tree = EditedTree(hostile, lambda _: False)
    began = time.monotonic()
    for act in (
        lambda: tree.read("huge.bin"),
        lambda: tree.write("huge.bin", None),
        lambda: tree.write("huge.bin", "x"),
    ):
        with pytest.raises(ToolMistakeError, match="has 100,000,000 bytes"):
            act()
    assert time.monotonic() - began < 20


def test_the_changes_together_stay_a_patch_that_can_be_judged(hostile: Tree) -> None:
    tree = EditedTree(hostile, lambda _: False)
    large = f"{'x' * 9_999}\n" * 300
    tree.write("one.txt", large)
    with pytest.raises(ToolMistakeError, match="4 MB"):
        tree.write("two.txt", large)
    assert tree.paths().count("one.txt") == 1
    assert "two.txt" not in tree.paths()
    apply_patch(hostile, tree.patch)


def test_very_many_files_cost_as_much_as_their_number(hostile: Tree) -> None:
    """The difference of a file is found once, not again after each change of another one."""
    tree = EditedTree(hostile, lambda _: False)
    began = time.process_time()
    for number in range(500):
        tree.write(f"made/in{number % 7}/file{number}.py", "x = 1\n" * 10)
    assert time.process_time() - began < 5  # it took 17 seconds
    assert len(tree.states) == 501
    assert len(apply_patch(hostile, tree.patch).paths()) == len(hostile.paths()) + 500
    for _ in range(500):
        assert tree.undo()
    assert tree.patch.is_empty
    tree.write("made", "now a file\n")


def test_the_record_of_all_states_of_a_tree_is_bounded(hostile: Tree) -> None:
    """An agent that changes one letter of a large file at a time would fill memory and disk."""
    tree = EditedTree(hostile, lambda _: False)
    large = f"{'x' * 9_999}\n" * 300
    for number in range(11):  # 3 MB each
        tree.write("one.txt", f"{number}\n{large}")
    with pytest.raises(ToolMistakeError, match="may have 32 MB: change no more"):
        tree.write("one.txt", f"one more\n{large}")
    assert sum(len(patch.text) for patch in tree.states.values()) < 32 << 20
    last = tree.patch
    assert tree.undo()
    tree.write("one.txt", f"10\n{large}")
    assert tree.patch == last, "to return to a state needs no room"


@pytest.mark.parametrize(
    "pattern",
    [
        "a{99999999}", "(?:a{1000}){1000}", r"(?P<a>(?&a))", "(?R)", r"\L<x>", "(" * 500, "(?:" * 70 + "a" + "){2}" * 70,
        "a{99999999999999999999}", "(?<=a+)b", "*",
    ],
)  # fmt: skip
def test_a_pattern_that_would_take_all_memory_is_a_mistake(pattern: str) -> None:
    began = time.monotonic()
    with pytest.raises(ToolMistakeError):
        compiled(pattern)
    assert time.monotonic() - began < 20


def test_braces_of_source_code_are_no_errors_that_a_pattern_allows() -> None:
    assert not compiled("total {e}").search("anything at all")
    assert compiled("total {e}").search('f"total {e}"')
    assert compiled(r"\d{4}-\d{2,}").search("on 2024-01")
    assert compiled(r"\{x{2}\}").search("{xx}")


@pytest.fixture
def agent(make_task: Callable[[str], Task], scorer: Scorer) -> RepositoryEnvironment:
    task = make_task("second")
    made = RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=1000))
    made.reset(task.id)
    return made


def test_a_flood_is_bounded_in_time_and_size(agent: RepositoryEnvironment) -> None:
    began = time.monotonic()
    assert "give at most 100" in agent.run_tests(["x"] * 100_000)
    assert "give at most 500" in agent.search("x", "*a" * 100_000)
    agent.read_file("x" * 10_000_000)
    agent.list_files("x" * 10_000_000)
    call_tool(agent, "x" * 10_000_000, "[" * 10_000_000)
    call_tool(agent, "edit", '{"path": "a.py", "new": ' + "[" * 100_000)
    call_tool(agent, "read_file", {"path": "library.py", "first_line": 10**400})
    call_tool(agent, "read_file", '{"path": "library.py", "first_line": 1e999, "last_line": NaN}')
    assert "at most 4,000,000 are allowed" in agent.edit("huge.py", new="x" * 50_000_000)
    assert all(step.is_mistake for step in agent.session.steps)
    assert max(len(repr(step.arguments)) for step in agent.session.steps) < 10_000_000, "the record keeps no flood"
    assert max(len(step.observation) for step in agent.session.steps) < 17_000
    assert time.monotonic() - began < 30


def test_changes_of_the_tests_surroundings_pay_nothing(agent: RepositoryEnvironment, scorer: Scorer) -> None:
    """Neither `run_tests` nor the verdict believes a conftest.py, a configuration or a sitecustomize.py of the agent."""
    cheat = "import pytest\n\n@pytest.hookimpl(hookwrapper=True)\ndef pytest_runtest_makereport(item, call):\n"
    cheat += "    outcome = yield\n    outcome.get_result().outcome = 'passed'\n"
    for path, text in {
        "conftest.py": cheat,
        "pytest.ini": "[pytest]\naddopts = --collect-only\n",
        "pyproject.toml": "[tool.pytest.ini_options]\naddopts = '-p cheat'\n",
        "sitecustomize.py": cheat,
        "usercustomize.py": "import os\nos._exit(0)\n",
    }.items():
        assert "created" in agent.edit(path, new=text)
    assert "use the original state of conftest.py" in agent.session.steps[0].observation
    assert agent.run_tests().startswith("1 failed, 3 passed")
    agent.edit("pytest.py", new="raise SystemExit(0)\n")
    (evidence,) = scorer.gather([(agent.session.task, agent.session.episode().patch)], {RunOfTests, Integrity})
    assert not evidence.records[RunOfTests].resolved


def test_code_of_an_agent_cannot_read_hidden_tests_while_shown_ones_run(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """The shown tests run the agent's code: in their workspace, the files of hidden tests do not exist."""
    plain = make_task("second")
    base = plain.base.with_files({"tests/test_hidden.py": f"def test_hidden():\n    assert '{SECRET}'\n"})
    task = replace(
        plain,
        base=base,
        pass_to_pass=(*plain.pass_to_pass, "tests/test_hidden.py::test_hidden"),
        shown=Shown(tests=("test_library.py",)),
    )
    agent = RepositoryEnvironment({task.id: task}, scorer)
    agent.reset(task.id)
    spy = (
        "    import pathlib\n    found = [path.read_text() for path in pathlib.Path('.').rglob('*hidden*')]\n"
        "    raise RuntimeError(repr(found))"
    )
    agent.edit("library.py", "    return items[2]", spy)
    seen = agent.run_tests()
    assert "RuntimeError" in seen
    assert SECRET not in seen
    assert SECRET not in agent.search(SECRET)
    assert "reserved" in agent.edit("tests/test_hidden.py", new="x")
    (evidence,) = scorer.gather([(task, agent.session.episode().patch)], {RunOfTests})
    assert len(evidence.records[RunOfTests].outcomes) == len(task.tests)


def test_tests_that_cannot_run_are_told_and_never_end_an_episode(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    """What the repository itself causes is a red run; a wrong interpreter is the user's error, at the first run."""
    plain = make_task("second")
    broken = replace(plain, base=plain.base.with_files({"conftest.py": "raise RuntimeError('no database')\n"}))
    agent = RepositoryEnvironment({plain.id: broken}, scorer)
    agent.reset(plain.id)
    seen = agent.run_tests()
    assert seen.startswith("4 failed, 0 passed")
    assert "The run ended early (crashed)" in seen
    assert "no database" in seen
    agent.submit()
    assert agent.session.episode().test_runs == 1
    nowhere = replace(plain, requirements=("/nowhere/python",))
    agent = RepositoryEnvironment({plain.id: nowhere}, scorer)
    assert "Mend" in agent.reset(plain.id)
    with pytest.raises(UserError, match="does not run"):
        agent.run_tests()


def test_a_task_whose_tests_are_not_measured_is_refused_before_a_model_is_asked(
    make_task: Callable[[str], Task], scorer: Scorer
) -> None:
    task = replace(make_task("second"), is_unmeasured=True)
    agent = RepositoryEnvironment({task.id: task}, scorer)
    with pytest.raises(UserError, match=r"measure them by with_pass_to_pass"):
        agent.reset(task.id)


class NoRoomSandbox(Process):
    """A sandbox on a machine whose disk is full."""

    def start(self, program: Program) -> TreeSession:
        raise SandboxError(f"no space left for {len(program.mounts)} mounts")


@pytest.mark.filterwarnings("ignore:the plain process is no security boundary")
def test_a_failure_of_the_machine_costs_an_agent_no_test_run_and_its_attempt_is_unscored(
    make_task: Callable[[str], Task], scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the full suite can be run afterwards: without its tests, the agent worked under other conditions."""
    verdict = ExecutedOutcome(scorer)
    monkeypatch.setattr("regrade.evaluators.scoring.gatherer.BACK_OFF", (0.01, 0.01))
    task = make_task("second")
    with Scorer(workers=1, cache=tmp_path, sandbox=NoRoomSandbox()) as full:
        agent = RepositoryEnvironment({task.id: task}, full, EpisodeLimits(test_runs=1))
        agent.reset(task.id)
        agent.diff()
        assert verdict([agent]) == [0.0]
        for _ in range(2):
            assert "not your fault and costs no test run: " in agent.run_tests()
    assert agent.session.episode().test_runs == 0
    assert "no space left" in agent.session.lost
    assert verdict([agent]) == [None]
