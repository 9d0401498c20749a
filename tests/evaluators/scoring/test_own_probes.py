"""Evidence types of a user's own: gathered without wiring, in a process that can be killed, cached by their code."""

from __future__ import annotations

import json
import os
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.evaluation.rescoring import rescore_run
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring import own_probes, static_workers
from regrade.evaluators.scoring.own_probes import ProbeError, own_probe
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.rewards import Breakdown, Reward, Score, reward
from regrade.rewards.conformance import check_reward
from regrade.rewards.loading import load_reward

OWN = """
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.rewards import Score, reward
from words import WORD


@dataclass(frozen=True)
class Todos:
    files: tuple[str, ...]
    process: int

    @classmethod
    def probe(cls, before: Tree, after: Tree, patch: Patch, task: Task) -> "Todos":
        LOG = Path(__file__).with_suffix(".log")
        LOG.write_text(LOG.read_text() + "probed\\n" if LOG.exists() else "probed\\n")
        print("a probe that prints")
        files = {path: after.read(path) for path in after.paths()}
        if "hang" in files["a.py"]:
            while True:
                pass
        if "wait" in files["a.py"]:
            time.sleep(3600)
        if "raise" in files["a.py"]:
            return files["missing.py"]
        if "leave" in files["a.py"]:
            sys.exit(0)
        if "other" in files["a.py"]:
            return None
        if "listed" in files["a.py"]:
            return cls(["a.py"], 1)
        if "exit" in files["a.py"]:
            os._exit(3)
        return cls(tuple(sorted(path for path, text in files.items() if WORD in text)), os.getpid())


@reward
def few_todos(todos: Todos) -> Score:
    return Score(1 / (1 + len(todos.files)), why=f"{todos.files} {todos.process}")
"""


@dataclass(frozen=True)
class Own:
    """A file with a reward, the task and the folder of a cache."""

    file: Path
    task: Task
    cache: Path

    def load(self) -> Reward:
        return load_reward(f"{self.file}:few_todos")

    def patch(self, text: str) -> Patch:
        return Patch.between({"a.py": "x = 1\n"}, {"a.py": text})

    def score(self, text: str) -> Breakdown:
        with Scorer(workers=1, sandbox="process", cache=self.cache) as scorer:
            return scorer.score([(self.task, self.patch(text))], self.load())[0]

    @property
    def runs(self) -> int:
        log = self.file.with_suffix(".log")
        return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    folder, root = tmp_path / "mine", tmp_path / "repo"
    folder.mkdir()
    root.mkdir()
    (folder / "my.py").write_text(OWN)
    (folder / "words.py").write_text("WORD = 'TODO'\n")
    (root / "a.py").write_text("x = 1\n")
    (root / "b.py").write_text("# TODO\n")
    task = Task(id="t", repository="r", base=Tree(root), instruction="", fail_to_pass=(), pass_to_pass=("b.py::test",))
    with pytest.warns(UserWarning, match="no security boundary"):
        yield Own(folder / "my.py", task, tmp_path / "cache")


def test_a_type_with_a_probe_needs_no_wiring(own: Own) -> None:
    verdict = own.score("x = 2  # TODO\n")
    assert verdict.value == pytest.approx(1 / 3)
    files, process = verdict.parts[0].why.rsplit(" ", 1)
    assert files == "('a.py', 'b.py')"
    assert int(process) != os.getpid(), "it runs in a process that can be killed"


def test_stored_evidence_belongs_to_the_code_of_the_probe(own: Own) -> None:
    for _ in range(2):
        assert own.score("x = 2\n").value == 0.5
    assert own.runs == 1
    own.file.with_name("words.py").write_text("WORD = 'x ='\n")  # a file that it imports
    assert own.score("x = 2\n").parts[0].why.startswith("('a.py',)")
    own.file.write_text(OWN.replace("WORD in text", "WORD not in text"))
    assert own.score("x = 2\n").parts[0].why.startswith("('b.py',)")
    assert own.runs == 3


def test_one_scorer_sees_changed_code_too(own: Own) -> None:
    job = (own.task, own.patch("x = 2\n"))
    with Scorer(workers=1, sandbox="process", cache=own.cache) as scorer:
        before = own.load()
        assert scorer.score([job], before)[0].parts[0].why.startswith("('b.py',)")
        own.file.with_name("words.py").write_text("WORD = 'x ='\n")
        with pytest.raises(ProbeError, match=r"my\.py, or a file that it imports, has changed meanwhile: run the"):
            scorer.score([(own.task, own.patch("x = 3\n"))], before)
        assert scorer.score([job], own.load())[0].parts[0].why.startswith("('a.py',)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raise", r"the probe of Todos raised KeyError: 'missing.py' at my.py:31, for task 't': it must accept any"),
        ("leave", r"the probe of Todos raised SystemExit: 0 at my.py:33, for task 't'"),
        ("other", r"the probe of Todos raised TypeError: it returned None, and no Todos \("),
        ("listed", r"the probe of Todos raised TypeError: its fields are not of their types, or JSON cannot represent"),
    ],
)
def test_an_error_of_a_probe_is_one_clear_message(own: Own, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        own.score(f"{text} = 1\n")
    assert "\n" not in str(caught.value)


def test_a_probe_that_hangs_is_stopped_and_the_patch_unscored(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_workers, "CPU_SECONDS", 1.0)
    verdict = own.score("hang = 1\n")
    assert (verdict.value, verdict.is_lost) == (None, True)
    assert "Todos: not read within 1 s of CPU time" in (verdict.cause or "")


def test_a_probe_that_waits_is_stopped_at_once_and_not_tried_again(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_workers, "WALL_SECONDS", 3.0)
    verdict = own.score("wait = 1\n")
    assert (verdict.value, verdict.is_lost) == (None, True)
    assert "Todos: no answer within 3 s" in (verdict.cause or "")
    assert own.runs <= 1  # on a busy machine, its process may not even have started


def test_a_passed_probe_that_waits_is_an_error_that_names_the_task(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_probes, "PASSED_SECONDS", 0.2)
    over = threading.Event()

    @reward
    def silent(evidence: Silent) -> Score:
        return Score(1.0, why=str(evidence))

    def waiting(_before: Tree, _after: Tree, _patch: Patch, _task: Task) -> Silent:
        over.wait()
        return Silent()

    said = (
        r"the probe of Silent did not end within 0.2 s \(it is at test_own_probes.py:\d+\), for task 't': it must end"
    )
    with (
        Scorer(workers=1, sandbox="process", cache=own.cache, probes={Silent: waiting}) as scorer,
        pytest.raises(ProbeError, match=said),
    ):
        scorer.score([(own.task, own.patch("x = 2\n"))], silent)
    over.set()


def test_a_probe_that_ends_its_process_leaves_the_patch_unscored(own: Own) -> None:
    verdict = own.score("exit = 1\n")
    assert (verdict.value, verdict.is_lost) == (None, True)
    assert "Todos: the process that reads it dies" in (verdict.cause or "")


def test_two_types_of_one_name_are_refused(own: Own) -> None:
    other = own.file.with_name("other.py")
    other.write_text(OWN)
    both = own.load() + load_reward(f"{other}:few_todos")
    with (
        Scorer(workers=1, sandbox="process", cache=own.cache) as scorer,
        pytest.raises(UserError, match="two types of evidence have the name 'Todos': rename one"),
    ):
        scorer.score([], both)


def test_a_run_stores_own_evidence_for_other_rewards(own: Own, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.add_policy("p", "candidate")
    rollout = Rollout(task_id="t", policy="p", temperature=0.0, sample=0, seed=0, patch=own.patch("x = 2  # TODO\n"))
    with Scorer(workers=1, sandbox="process", cache=own.cache) as scorer:
        evaluate([rollout], [own.task], scorer, own.load(), run.evaluation("p"))
    other = OWN.replace("1 / (1 + len(todos.files))", "0.25 * len(todos.files)")
    own.file.write_text(other)
    assert rescore_run(run, own.load())["p"][1][0]["reward"] == 0.5
    assert own.runs == 1


def test_a_reward_with_own_evidence_can_be_checked(own: Own) -> None:
    with Scorer(workers=1, sandbox="process", cache=own.cache):
        assert check_reward(own.load(), examples=20) == ()


@dataclass(frozen=True)
class Impact:
    """Of the name of a built-in type."""

    @classmethod
    def probe(cls, before: Tree, after: Tree, patch: Patch, task: Task) -> Impact:  # noqa: ARG003 (as all probes)
        return cls()


@dataclass(frozen=True)
class Plain:
    """Its probe is a method of a record, which does not exist yet."""

    def probe(self, before: Tree, after: Tree, patch: Patch, task: Task) -> Plain:  # noqa: ARG002 (as all probes)
        return self


@dataclass(frozen=True)
class Silent:
    """Without a probe."""


def local_type() -> type:
    @dataclass(frozen=True)
    class Local:
        @classmethod
        def probe(cls, before: Tree, after: Tree, patch: Patch, task: Task) -> Local:  # noqa: ARG003 (as all probes)
            return cls()

    return Local


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Impact, "the evidence type 'Impact' has the name of a built-in one: rename it"),
        (lambda: Plain, r"Plain.probe must be a @classmethod or @staticmethod with \(before, after, patch, task\) \("),
        (local_type, "Local' is not at the top of an imported file, .*: move it into a module of its own, or pass Sc"),
    ],
)
def test_a_probe_that_no_other_process_can_run_is_refused(make: Callable[[], type], message: str) -> None:
    with pytest.raises(UserError, match=message):
        own_probe(make())


def test_without_a_probe_the_error_says_how_to_add_one(own: Own) -> None:
    @reward
    def silent(evidence: Silent) -> Score:
        return Score(1.0, why=str(evidence))

    with (
        Scorer(workers=1, sandbox="process", cache=own.cache) as scorer,
        pytest.raises(UserError, match=r"no probe gathers Silent: give it a class method probe\(before, after, patch"),
    ):
        scorer.score([], silent)


def test_the_command_line_needs_no_wiring_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from regrade.cli.main import app

    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "cache"))
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "a.py").write_text("x = 1\n")
    (repo / "test_a.py").write_text("import a\n\ndef test_a():\n    assert a.x\n")
    (tmp_path / "my.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "words.py").write_text("WORD = 'TODO'\n")
    (tmp_path / "fix.diff").write_text(Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 2  # TODO\n"}).text)
    arguments = [
        "score",
        str(tmp_path / "fix.diff"),
        "--repo",
        str(repo),
        "--reward",
        f"{tmp_path / 'my.py'}:few_todos",
    ]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["value"] == 0.5
    (tmp_path / "fix.diff").write_text(Patch.between({"a.py": "x = 1\n"}, {"a.py": "x = 'raise'\n"}).text)
    done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("error: ") == 1
    assert "error: the probe of Todos raised KeyError: 'missing.py' at my.py:31" in done.stderr
