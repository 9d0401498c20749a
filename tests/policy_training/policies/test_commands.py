"""Policies that are commands: real scripts in real copies of the tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout, Sampling, trials
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.policies.commands import LONGEST_OUTPUT, Command, CommandPolicy
from regrade.rewards import tests as passing
from regrade.rewards.evidence import TestRun

FIX = "sed -i 's/return items.2./return items[1]/' library.py"
GREEDY = [Sampling(0.0, 1)]


def shell(script: str, **more: object) -> Command:
    return Command(arguments=("sh", "-c", script), **more)  # type: ignore[arg-type]


def attempts(command: Command, task: Task, samplings: list[Sampling] = GREEDY) -> list[Rollout]:
    return list(CommandPolicy(command, "agent").propose([task], samplings, seed=5))


def one(script: str, task: Task, **more: object) -> Rollout:
    (rollout,) = attempts(shell(script, **more), task)
    return rollout


@pytest.fixture
def task(make_task) -> Task:
    return make_task("second")


def test_what_it_changed_is_the_prediction_and_is_scored(task: Task, scorer: Scorer) -> None:
    rollout = one(f"{FIX}; echo done", task)
    assert task.reference is not None
    assert [(file.path, file.added) for file in rollout.patch.files] == [
        (file.path, file.added) for file in task.reference.files
    ]
    assert rollout.completion == "done\n"
    assert rollout.seconds > 0
    (found,) = scorer.gather([(task, rollout.patch)], {TestRun})
    assert passing.evaluate(found).value == 1.0


def test_the_trajectory_that_it_leaves_is_its_episode(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    left = {
        "trajectory_format": "mini-swe-agent-1",
        "info": {},
        "messages": [
            {"role": "user", "content": "mend"},
            {"role": "assistant", "content": "```bash\nls\n```"},
            {"role": "user", "content": "library.py"},
        ],
    }
    command = Command(arguments=("sh", "-c", f"{FIX}; printf %s '{json.dumps(left)}' > {{trajectory}}"))
    (rollout,) = attempts(command, task)
    assert rollout.episode is not None
    assert [(step.arguments, step.observation) for step in rollout.episode.steps] == [({"command": "ls"}, "library.py")]
    assert (rollout.episode.task_id, rollout.episode.patch) == (task.id, rollout.patch)
    for script in ('echo "{" > $REGRADE_TRAJECTORY', "mkdir $REGRADE_TRAJECTORY", "mkfifo $REGRADE_TRAJECTORY"):
        rollout = one(f"{FIX}; {script}", task)
        assert rollout.episode is None
        assert not rollout.patch.is_empty
    assert caplog.text.count("trajectory not stored: task second: ") == 3


def test_start_and_end_are_logged_without_what_it_is_given(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "regrade"):
        one("echo hidden >&2; exit 3", task, environment={"KEY": "hidden"})
    started, ended, lost = (record.getMessage() for record in caplog.records if record.name.endswith(".commands"))
    assert started.startswith("command started: task second: /")
    assert ended.startswith("command ended: task second: code 3, ")
    assert lost == "attempt lost: task second, sample 0: code 3"
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("put", ["", 'ln -s "$ELSEWHERE" "$PWD"', 'touch "$PWD"'], ids=["nothing", "a link", "a file"])
def test_it_may_take_away_the_folder_itself_and_nothing_elsewhere_is_touched(
    task: Task, tmp_path: Path, put: str
) -> None:
    (tmp_path / ".git").mkdir()
    script = f'cd ..; rm -rf "$PWD/tree"; PWD="$PWD/tree"; {put or "true"}'
    rollout = one(script, task, environment={"ELSEWHERE": str(tmp_path)})
    assert not rollout.lost
    assert {file.path for file in rollout.patch.files} == set(task.base.paths())
    assert (tmp_path / ".git").is_dir()


def test_it_sees_the_base_as_its_only_commit_and_no_reference(task: Task, library: Path) -> None:
    rollout = one(
        "git log --all --format=%s%d; git status --short; ls -A; cat library.py; env; cat $REGRADE_INSTRUCTION_FILE",
        task,
    )
    lines = rollout.completion.splitlines()
    assert lines[:4] == ["base (HEAD -> main)", ".git", "library.py", "test_library.py"]
    assert (library / "library.py").read_text() in rollout.completion
    assert "return items[1]" not in rollout.completion
    assert "REGRADE_TASK=second" in lines
    assert "REGRADE_SEED=5000" in lines
    assert "- test_library.py::test_second" in lines, "the instruction names the test"
    assert rollout.patch == Patch("")


def test_history_of_the_repository_stays_out(tmp_path: Path) -> None:
    """Also where `.git` is a file, as in a worktree, that leads to the history of another folder."""
    main, tree = tmp_path / "main", tmp_path / "tree"
    main.mkdir()
    (main / "a.py").write_text("x = 'the fix of the future'\n")
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "future"], ["worktree", "add", "-q", str(tree)]):
        subprocess.run(["git", *words], cwd=main, check=True, env={**os.environ, **who})
    assert (tree / ".git").is_file()
    (tree / "a.py").write_text("x = 1\n")
    here = Task(id="t", repository="tree", base=Tree(tree), instruction="", fail_to_pass=("a.py::t",), pass_to_pass=())
    rollout = one("git log --all -p; sed -i s/1/2/ a.py", here)
    assert "future" not in rollout.completion
    assert [file.added for file in rollout.patch.files] == [((1, "x = 2"),)]


@pytest.mark.parametrize(
    "script",
    [
        "git commit -qam mine; git log --oneline",
        "rm -rf .git",
        "git checkout -q -b other; git stash -q; git stash pop -q",
        "echo library.py > .git/info/exclude; git config core.fileMode true; chmod +x library.py",
        "mkdir nested; git -C nested init -q; touch nested/.git/x",
        "rm -rf .git; ln -s /tmp .git",
        "mkdir -p .pytest_cache __pycache__ .venv/bin; touch .pytest_cache/a __pycache__/b.pyc; ln -s /usr .venv/bin/usr",
    ],
)
def test_whatever_it_does_to_git_or_leaves_in_caches(task: Task, script: str) -> None:
    rollout = one(
        f"export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b; {FIX}; {script}",
        task,
    )
    assert [file.path for file in rollout.patch.files] == ["library.py"]


@pytest.mark.parametrize(
    ("script", "changed"),
    [
        ("rm library.py; mkfifo library.py; mkfifo other", ["library.py"]),
        ("rm library.py; mkdir library.py; echo x > library.py/a", ["library.py", "library.py/a"]),
        ("rm library.py; ln -s /etc/passwd library.py", ["library.py"]),
        ("echo x > new.py; chmod 0 new.py; mkdir d; echo y > d/y.py; chmod 0 d; chmod 0 .", ["d/y.py", "new.py"]),
        ("rm -rf * .git", ["library.py", "test_library.py"]),
        ('rm -rf "$PWD/.."/*', ["library.py", "test_library.py"]),
        ('rm -rf "$(dirname "$PWD")"', ["library.py", "test_library.py"]),
        ("rm -rf ../base.git; echo x > new.py", ["new.py"]),
    ],
)
def test_whatever_it_puts_in_a_files_place(task: Task, script: str, changed: list[str]) -> None:
    rollout = one(script, task)
    assert sorted({file.path for file in rollout.patch.files}) == changed


def test_new_deleted_and_odd_files_apply(tmp_path: Path) -> None:
    root = tmp_path / "odd"
    root.mkdir()
    (root / ".gitattributes").write_text("* text=auto eol=crlf\n*.py filter=none ident\n")
    (root / ".gitignore").write_text("ignored.py\n*.log\n")
    (root / "ignored.py").write_text("a = 1\n")
    (root / "crlf.py").write_bytes(b"a = 1\r\nb = 2\r\n")
    (root / "latin.py").write_bytes("# caf\xe9\na = 1".encode("latin-1"))
    (root / "gone.py").write_text("x = 1\n")
    (root / "naïve name.py").write_text("a = 1\n")
    task = Task(id="t", repository="odd", base=Tree(root), instruction="", fail_to_pass=("t.py::t",), pass_to_pass=())
    script = "for f in *.py; do sed -i 's/a = 1/a = 3/' \"$f\"; done; rm gone.py; mkdir new; echo b > new/b.py; echo x > a.log"
    after = prepare(task, one(script, task).patch).after
    found = {
        path: after.read(path).encode("utf-8", "surrogateescape") for path in after.paths() if path.endswith(".py")
    }
    assert found == {
        "ignored.py": b"a = 3\n", "crlf.py": b"a = 3\r\nb = 2\r\n", "latin.py": b"# caf\xe9\na = 3",
        "naïve name.py": b"a = 3\n", "new/b.py": b"b\n",
    }  # fmt: skip
    assert "a.log" not in after.paths()


def test_edits_of_tests_are_in_the_prediction_and_count_for_nothing(task: Task, scorer: Scorer) -> None:
    rollout = one("echo 'def test_second(): pass' > test_library.py; echo 'import pytest' > conftest.py", task)
    assert [file.path for file in rollout.patch.files] == ["conftest.py", "test_library.py"]
    (found,) = scorer.gather([(task, rollout.patch)], {TestRun})
    assert not found.records[TestRun].fixed


def test_at_the_time_limit_what_is_there_counts_and_everything_is_killed(task: Task, tmp_path: Path) -> None:
    escaped = f"{sys.executable} -c \"import os, time; os.setsid(); os.fork() and os._exit(0); open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)\""
    began = time.monotonic()
    rollout = one(f"{FIX}; {escaped} & sleep 60", task, seconds=1.0)
    assert time.monotonic() - began < 20
    assert not rollout.lost
    assert not rollout.patch.is_empty
    escaped_pid = int((tmp_path / "pid").read_text())
    state = Path(f"/proc/{escaped_pid}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_it_leaves_running_does_not_outlive_the_attempt(task: Task, tmp_path: Path) -> None:
    rollout = one(f"(sleep 1; touch {tmp_path}/late) & {FIX}", task)
    assert not rollout.patch.is_empty
    time.sleep(1.2)
    assert not (tmp_path / "late").exists()


def test_failing_without_a_change_is_lost_and_with_one_counts(task: Task) -> None:
    lost = one("echo cannot reach the model; exit 3", task)
    assert lost.lost == "the command ended with code 3 and changed nothing: cannot reach the model"
    assert not one(f"{FIX}; exit 3", task).lost
    counted = one("exit 3", task, count_failures=True)
    assert (counted.lost, counted.patch) == ("", Patch(""))
    many = attempts(shell("exit 3", at_a_time=1, dead_after=2), task, [Sampling(1.0, 5)])
    assert sum("not started" in rollout.lost for rollout in many) == 3


def test_arguments_are_filled_in_and_nothing_else_in_braces_is(task: Task) -> None:
    (rollout,) = attempts(
        Command(arguments=("echo", "{task}:{temperature}:{seed}", '{"a": {b}}', "{instruction}"), at_a_time=1),
        task, [Sampling(0.5, 1)],
    )  # fmt: skip
    assert rollout.completion.startswith('second:0.5:5000 {"a": {b}} Mend `second`.')


def test_however_much_it_prints_only_the_end_is_kept(task: Task) -> None:
    rollout = one(f"{FIX}; yes 'a line' | head -c 20000000; echo the end", task)
    assert not rollout.patch.is_empty
    assert rollout.completion.endswith("the end\n")
    assert len(rollout.completion) == LONGEST_OUTPUT


def test_a_command_that_cannot_be_started_is_a_user_error(task: Task, tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"\x7fELF nonsense")
    (tmp_path / "agent").chmod(0o755)
    with pytest.raises(UserError, match="cannot be started: Exec format error"):
        attempts(Command(arguments=(str(tmp_path / "agent"),)), task)
    with pytest.raises(UserError, match=r"Argument list too long; use \{instruction_file\}"):
        attempts(Command(arguments=("echo", "{instruction}")), replace(task, instruction="x" * 200_000))


def test_a_command_that_is_not_there_is_a_user_error(task: Task) -> None:
    with pytest.raises(UserError, match="'no-such-agent' is not installed"):
        attempts(Command(arguments=("no-such-agent",)), task)
    with pytest.raises(UserError, match="empty"):
        Command(arguments=())


def test_stopping_ends_what_is_under_way_and_leaves_no_folder_behind(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = f'{FIX}; mkdir -p a/b; [ "$REGRADE_SEED" = 0 ] || sleep 60'
    policy = CommandPolicy(shell(script, at_a_time=2), "agent")
    rollouts = policy.attempt(trials([task], [Sampling(1.0, 4)]), 0, lambda _trial, _rollout: None)
    began = time.monotonic()
    assert next(rollouts).sample == 0
    rollouts.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 20
    assert list(tmp_path.iterdir()) == []
