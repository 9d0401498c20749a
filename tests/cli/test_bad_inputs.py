"""Bad input to every command: an error that says what is wrong, where, and what to do; never a stack trace or a hang.

No row runs a test suite, trains a model or fetches a package: each is refused before.
"""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regrade.cli.jobs import read_patch
from regrade.datasets.errors import UserError
from regrade.datasets.json_text import read_text

ROOT = Path(__file__).resolve().parents[2]
REGRADE = (sys.executable, "-c", "from regrade.cli.main import main; main()")
SECONDS = 60
"""Longest time of one row: an input without an end must not be read to its end."""
MOST_LINES = 6
"""Of an error: usage, the hint at --help and the error itself."""


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """Ends a row that hangs."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no end within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def symbolic(target: str | None) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target or path)


def written(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": lambda _: None,
    "folder": Path.mkdir,
    "empty": Path.touch,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 8),
    "latin": lambda path: path.write_bytes("diff --git a/é b/é\n".encode("latin-1")),
    "prose": written("Please mend the bug.\n"),
    "surrogate": written('{"id": "\\ud800", "\\udfff": 1, "tasks": ["\\ud800"]}\n'),
    "unknown": written('{"colour": 1}\n'),
    "doubled": written('{"id": "one", "id": "two"}\n'),
    "numbers": written('{"id": NaN, "reward": 1e999, "sample": ' + "9" * 5000 + "}\n"),
    "nested": written("[" * 100_000 + "\n"),
    "fifo": os.mkfifo,
    "loop": symbolic(None),
    "full": symbolic("/dev/full"),
    "zero": symbolic("/dev/zero"),
    "cut": lambda path: path.write_bytes(gzip.compress(b"[]" * 1000)[:20]),
    "large": written("+" * (5 << 20)),
    "outside": written("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n"),
    "other": written("--- a/calc/gone.py\n+++ b/calc/gone.py\n@@ -1 +1 @@\n-a\n+b\n"),
    "toml": written("[[policy]\n"),
    "colour": written("colour = 1\n"),
    "twice": written("[[policy]]\nname = 'a'\nname = 'b'\n"),
    "code": written("def mine(:\n"),
    "exits": written("raise SystemExit(0)\n"),
    "plain": written("def mine(run):\n    return 1.0\n"),
}  # fmt: skip
"""A bad file; a word `@KIND.EXTENSION` of a row stands for its path, `@run:KIND` for a run with such a manifest."""


@pytest.fixture
def path_of(tmp_path: Path) -> Callable[[str], str]:
    """The path of a word of a row that starts with @."""

    def path_of(word: str) -> str:
        name, colon, rest = word.removeprefix("@").partition(":")
        if name == "run":
            (tmp_path / "run").mkdir()
            KINDS[rest](tmp_path / "run" / "manifest.json")
            return str(tmp_path / "run")
        path = tmp_path / name
        if not os.path.lexists(path):
            KINDS[name.partition(".")[0]](path)
        return f"{path}{colon}{rest}"

    return path_of


@pytest.fixture
def words_of(path_of, tmp_path, repo, fix, tasks) -> Callable[[str], list[str]]:
    """The arguments of a row. Its repository has no tests."""
    (repo / "tests" / "test_calc.py").unlink()
    places = {"{repo}": repo, "{fix}": fix, "{tasks}": tasks, "{out}": tmp_path / "out", "{missing}": tmp_path / "gone"}

    def filled(word: str) -> str:
        for name, path in places.items():
            word = word.replace(name, str(path))
        return word

    def words_of(line: str) -> list[str]:
        return [path_of(word) if word.startswith("@") else filled(word) for word in line.split()]

    return words_of


def check(code: int, out: str, err: str, fragments: tuple[str, ...]) -> None:
    """The command was refused, by an error of a few lines that contains the fragments."""
    assert code == 2, (out[-500:], err[-500:])
    assert "Traceback" not in err
    assert out == ""
    told = [line for line in err.strip().splitlines() if not line.startswith(("note: ", "downloading", "running"))]
    assert len(told) <= MOST_LINES, err
    assert told[-1].lower().startswith("error: "), err
    for fragment in fragments:
        assert fragment in told[-1], told[-1]
    assert len(told[-1]) < 1500, told[-1]


Row = tuple[str, ...]
"""A command and fragments of its error: what is wrong or where, and what to do."""
PATCHES: list[Row] = [
    ("score @missing.diff --repo {repo}", "No such file", "give a file with a unified diff"),
    ("score @folder.diff --repo {repo}", "directory", "give a file with a unified diff"),
    ("score @binary.diff --repo {repo}", "binary.diff", "`git diff > fix.diff` writes one"),
    ("score @latin.diff --repo {repo}", "change nothing", "make it again"),
    ("score @prose.diff --repo {repo}", "expected a unified diff", "`git diff > fix.diff` writes one"),
    ("score @fifo.diff --repo {repo}", "no program writes into the pipe", "give a file"),
    ("score @loop.diff --repo {repo}", "symbolic links", "give a file"),
    ("score @zero.diff --repo {repo}", "is a device", "give a file"),
    ("score @large.diff --repo {repo}", "5.0 MB", "the limit is 4 MB"),
    ("score @outside.diff --repo {repo}", "'../x' leaves the repository", "may touch only the repository's own files"),
    ("score @other.diff --repo {repo}", "calc/gone.py: No such file", "does not apply"),
    ("score @empty.diff @prose.diff --repo {missing}", "is not a folder", "give the path of a repository with --repo"),
    ("score - - --repo {repo}", "standard input", "give - once"),
    ("score", "PATCH", "Missing argument"),
    ("explain @missing.diff --repo {repo}", "No such file", "give a file with a unified diff"),
    ("explain {fix} {fix} --repo {repo}", "one patch at a time", "regrade score"),
    ("explain {fix} five --repo {repo}", "not a run", "--task"),
    ("doctor --repo {repo} --reference @missing.diff", "No such file", "give a file"),
]  # fmt: skip
TASK_FILES: list[Row] = [
    ("tasks list @missing.jsonl", "missing.jsonl", "pass its path"),
    ("tasks list @folder.jsonl", "contains no recipes", "regrade tasks build"),
    ("tasks list @empty.jsonl", "contains no task", "needs the keys"),
    ("tasks list @binary.jsonl", "not UTF-8", "save it as UTF-8"),
    ("tasks list @surrogate.jsonl", "surrogate.jsonl:1", "surrogate"),
    ("tasks list @unknown.json", "unknown key 'colour'", "known keys: assurance, base_patch"),
    ("tasks list @doubled.jsonl", "doubled.jsonl:1", "\"id\" occurs twice in one object: leave one"),
    ("tasks list @numbers.json", "numbers.json:1", "too many digits"),
    ("tasks list @nested.json", "nested.json:1", "nested too deeply"),
    ("tasks list @prose.json", "prose.json:1: not JSON", "column 1"),
    ("tasks list @fifo.jsonl", "pipe or a device", "save its content in a file"),
    ("tasks list @loop.jsonl", "loop.jsonl", "pass its path"),
    ("tasks list @zero.jsonl", "pipe or a device", "save its content in a file"),
    ("tasks list @cut.json.gz", "cut.json.gz", "pass the path of a readable file"),
    ("tasks list {tasks} --split validation", "has no splits", "omit the split"),
    ("tasks list --split nothing", "nothing", "demonstrations"),
    ("tasks show five {tasks}", "no task 'five'", "see `regrade tasks list`"),
    ("tasks show", "TASK_ID", "Missing argument"),
    ("tasks validate {tasks} --sandbox chroot", "chroot", "bubblewrap"),
    ("tasks validate {tasks} --workers 0", "--workers", "greater than or equal to"),
    ("tasks build --out {out} --package nothing", "nothing", "anytree"),
    ("tasks build --out /dev/null/out --package parse", "/dev/null is no folder that you can write into", "choose another folder"),
    ("tasks build --out {fix} --package parse", "--out", "is a file"),
    ("tasks build ./nowhere --out {out}", "no repository './nowhere'", "pass an existing folder or archive, a git URL"),
    ("tasks build {repo} --out {out} --source nothing", "no task source 'nothing'", "commits, mutation, cross-module, features"),
    ("tasks build {repo} --out {repo}", "which is no part of a task set", "pass a new folder with --out"),
    ("tasks build {repo} --out {out} --package parse", "--package and --cross-module are for pinned packages", "leave them out"),
    ("tasks build --out {out} --source commits", "the recipes of pinned packages", "mutation or cross-module"),
    ("tasks build {fix} --out {out}", "is a file, and no archive", "pass the folder of a repository"),
    ("score {fix} --tasks @fifo.jsonl", "pipe or a device", "save its content"),
    ("score {fix} --tasks {tasks}", "4 tasks", "choose one with --task"),
    ("score {fix} --tasks {tasks} --task five", "no task 'five'", "see `regrade tasks list`"),
    ("score {fix} --tasks {tasks} --task add --fail-to-pass x", "--fail-to-pass", "leave it out"),
    ("score {fix} --tasks {tasks} --task add --tests x", "--tests", "leave them out"),
    ("doctor @zero.jsonl", "pipe or a device", "save its content"),
    ("doctor @missing.jsonl", "missing.jsonl", "pass"),
    ("doctor {tasks} --repo {repo}", "exclude each other", "one after the other"),
    ("doctor --fail-to-pass x", "--fail-to-pass", "give --repo"),
    ("doctor {tasks} --runs 0", "--runs", "greater than or equal to"),
    (f"doctor {{tasks}} --runs {10**30}", "--runs", "less than or equal to"),
    (f"doctor {{tasks}} --seed {'9' * 5000}", "--seed", "integer"),
    ("doctor {tasks} --limit 0", "--limit", "greater than or equal to"),
]  # fmt: skip
OPTIONS: list[Row] = [
    (f"score {{fix}} --repo {{repo}} --workers {10**21}", "--workers", "less than or equal to"),
    ("score {fix} --repo {repo} --time-limit nan", "--time-limit", "less than or equal to"),
    ("score {fix} --repo {repo} --time-limit inf", "--time-limit", "less than or equal to"),
    ("score {fix} --repo {repo} --test-timeout -1", "--test-timeout", "greater than or equal to"),
    ("score {fix} --repo {repo} --sandbox chroot", "chroot", "bubblewrap"),
    ("score {fix} --repo {repo} --assured NaN", "NaN", "tripwired"),
    ("score {fix} --repo {fix}", "is not a folder", "give the path of a repository with --repo"),
    ("score {fix} --repo {repo} --colour", "--colour", "No such option"),
    ("score {fix} --repo {repo} --reward nothing", "unknown reward 'nothing'", "choose one of"),
    ("score {fix} --repo {repo} --reward @missing.py:mine", "there is no file", "pass FILE:NAME"),
    ("score {fix} --repo {repo} --reward @exits.py:mine", "exits.py:1", "SystemExit"),
    ("score {fix} --repo {repo} --reward learned", "names no reward model", "pass learned:FOLDER"),
    ("score {fix} --repo {repo} --reward learned:missing.model", "missing.model", "train reward-model"),
    ("score {fix} --repo {repo} --reward learned:{repo}", "holds no reward model", "train reward-model"),
    ("rank {fix} --repo {repo} --model @missing.model", "missing.model", "train reward-model"),
    ("rank {fix} --repo {repo} --model @folder.model", "folder.model", "train reward-model"),
    *(
        (f"explain {{fix}} --repo {{repo}} --hunks --budget {value}", "--budget", fragment)
        for value, fragment in {"7": "greater than or equal to", "-1": "greater than or equal to", "1e30": "integer", "nan": "integer", "inf": "integer",
                                str(10**30): "less than or equal to"}.items()
    ),
    (f"explain {{fix}} --repo {{repo}} --hunks --seed {10**30}", "--seed", "less than or equal to"),
    ("explain {fix} --repo {repo} --json --html", "--json and --html", "give one of them"),
    ("explain {fix} --repo {repo} --fine", "--fine needs --hunks", "give both, or neither"),
    ("explain {fix} --repo {repo} --sample -1", "--sample", "greater than or equal to"),
    ("rewards check {fix}:x", "not a Python file", "must end in .py"),
    ("rewards check @code.py:mine", "code.py:1", "SyntaxError"),
    ("rewards check @plain.py:mine", "plain function", "decorate it with @reward"),
    ("rewards check @plain.py:yours", "has no 'yours'", "its rewards: none"),
    ("rewards check tests --examples 0", "--examples", "greater than or equal to"),
    ("rewards check tests --examples 99999999999", "--examples", "less than or equal to"),
    ("rewards list extra", "extra", "unexpected extra argument"),
    ("cache prune --to nan", "--to", "less than or equal to"),
    ("cache prune --to -1", "--to", "greater than or equal to"),
    ("cache clear nothing", "no part 'nothing'", "give one or more of"),
    ("cache clear", "PART", "Missing argument"),
    ("fly", "fly", "No such command"),
    ("--reward tests score", "--reward", "No such option"),
]  # fmt: skip
RUNS: list[Row] = [
    ("explain @missing.jsonl one", "no such file", "regrade evaluate"),
    ("explain @zero.jsonl one", "pipe or a device", "save its content"),
    ("explain @run:missing one", "no rows", "regrade evaluate"),
    ("explain @unknown.jsonl one two", "one attempt at a time", "give the task"),
    ("compare @missing.run", "no such file", "regrade evaluate"),
    ("compare @empty.jsonl", "no rows", "regrade evaluate"),
    ("compare @numbers.jsonl", "line 1: not JSON", "delete that line"),
    ("compare @nested.jsonl", "line 1: not JSON", "delete that line"),
    ("compare @doubled.jsonl", "line 1: not JSON (the key \"id\" occurs twice", "delete that line"),
    ("compare @unknown.jsonl", "row 1: not a row of an evaluation", "regrade evaluate"),
    ("compare @surrogate.jsonl", "row 1", "surrogate"),
    ("compare @fifo.jsonl", "pipe or a device", "save its content"),
    ("compare @run:prose", "manifest.json:1: not JSON", "restore it or start the run in a new folder"),
    ("compare @run:doubled", "occurs twice", "restore it or start the run in a new folder"),
        ("compare @missing.run --fail-on sometimes", "--fail-on", "'regressed'"),
    ("compare @missing.run --json --markdown", "--json and --markdown", "give one of them"),
    ("rescore @missing.run --reward tests", "not a run", "regrade evaluate"),
    ("rescore @run:fifo --reward tests", "manifest.json: it is a pipe or a device", "restore it or start"),
    ("rescore @run:surrogate --reward tests", "manifest.json: damaged", "restore it or start"),
    ("rescore @run:unknown --reward tests", "no rows of any policy", "give the folder of an evaluation"),
    ("rescore @run:missing", "--reward", "Missing option"),
    ("report @missing.run", "not a run", "regrade evaluate"),
    ("report @run:nested", "nested too deeply", "restore it or start"),
    ("report @run:loop", "not a run", "regrade evaluate"),
    ("report", "RUN", "Missing argument"),
    ("rewards audit @missing.jsonl", "missing.jsonl", "regrade evaluate"),
    ("rewards audit @doubled.jsonl", "occurs twice", "delete that line"),
    ("evaluate plan @missing.jsonl", "no such file", "regrade evaluate"),
    ("evaluate plan", "no discordance", "--discordance 0.1"),
    ("evaluate plan --from @missing.jsonl", "--from", "No such option"),
    ("evaluate plan @empty.jsonl --discordance 0.1", "not both", "give a run or --discordance"),
    ("evaluate plan --discordance nan", "found nan", "must be in (0, 1]"),
    ("evaluate plan --discordance 2", "found 2.0", "must be in (0, 1]"),
    ("evaluate plan --discordance 0.1 --effect inf", "found inf", "must be between 0 and 1"),
    ("evaluate plan --discordance 0.1 --power 1", "found 1.0", "must be between 0.5 and 1"),
    (f"evaluate plan --discordance 0.1 --attempts {10**30}", "--attempts", "less than or equal to"),
    ("evaluate plan --discordance 0.1 --declare {fix}", "--declare", "is a file"),
]  # fmt: skip
EVALUATIONS: list[Row] = [
    ("evaluate --tasks {tasks} --out {out}", "no policy", "give POLICY"),
    ("evaluate no-op --tasks @missing.jsonl --out {out}", "missing.jsonl", "pass its path"),
    ("evaluate no-op --tasks {tasks} --out /dev/null/out", "/dev/null is no folder that you can write into", "choose another folder"),
    ("evaluate no-op --tasks {tasks} --out {fix}", "--out", "is a file"),
    ("evaluate no-op --tasks {tasks}", "--out", "Missing option"),
    ("evaluate no-op --tasks {tasks} --out {out} --role king", "--role", "'baseline'"),
    ("evaluate no-op --tasks {tasks} --out {out} --baseline king", "'king' is none of the policies", "no-op"),
    ("evaluate no-op no-op --tasks {tasks} --out {out}", "the name 'no-op'", "NAME=POLICY"),
    ("evaluate no-op --tasks {tasks} --out {out} --validation @missing.jsonl --temperature 0 --temperature 1",
     "missing.jsonl", "pass its path"),
    ("evaluate no-op --tasks {tasks} --out {out} --temperature nan", "--temperature", "less than or equal to"),
    (f"evaluate no-op --tasks {{tasks}} --out {{out}} --samples {10**30}", "--samples", "less than or equal to"),
    (f"evaluate no-op --tasks {{tasks}} --out {{out}} --requests {10**30}", "--requests", "less than or equal to"),
    ("evaluate no-op --tasks {tasks} --out {out} --answer-limit inf", "--answer-limit", "less than or equal to"),
    ("evaluate endpoint:x --tasks {tasks} --out {out}", "behind an endpoint", "--endpoint"),
    ("evaluate endpoint:x --endpoint ftp://x --tasks {tasks} --out {out}", "ftp://x", "http"),
    ("evaluate command:no-such-program --tasks {tasks} --out {out}", "'no-such-program' is not installed", "give a program's name"),
    ("evaluate --policies @missing.toml --tasks {tasks} --out {out}", "missing.toml", "pass the path"),
    ("evaluate --policies @fifo.toml --tasks {tasks} --out {out}", "pipe or a device", "save its content"),
    ("evaluate --policies @binary.toml --tasks {tasks} --out {out}", "not UTF-8", "save it as UTF-8"),
    ("evaluate --policies @toml.toml --tasks {tasks} --out {out}", "no TOML", "line 1"),
    ("evaluate --policies @twice.toml --tasks {tasks} --out {out}", "no TOML", "line 3"),
    ("evaluate --policies @colour.toml --tasks {tasks} --out {out}", "expected one or more tables [[policy]]", "colour"),
    ("evaluate --predictions @missing.jsonl --tasks {tasks} --out {out}", "missing.jsonl", "pass the path"),
    ("evaluate --predictions @empty.jsonl --tasks {tasks} --out {out}", "no predictions", "empty"),
    ("evaluate --predictions @doubled.jsonl --tasks {tasks} --out {out}", "occurs twice", "leave one"),
    ("evaluate --predictions @nested.json --tasks {tasks} --out {out}", "nested too deeply", "leave out levels"),
    ("evaluate --checkpoints @missing.run --tasks {tasks} --out {out}", "there is no folder", "name the one"),
    ("evaluate --checkpoints @folder.run --tasks {tasks} --out {out}", "holds no checkpoints", "expected folders"),
    ("train sft --out {out} --tasks {tasks}", "no limit for the training", "give --steps"),
    ("train sft --out {out} --tasks @missing.jsonl --steps 1", "missing.jsonl", "pass its path"),
    ("train sft --out {out} --tasks {tasks} --minutes inf", "--minutes", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --minutes nan", "--minutes", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 0", "--steps", "greater than or equal to"),
    (f"train sft --out {{out}} --tasks {{tasks}} --steps {10**30}", "--steps", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 1 --learning-rate inf", "--learning-rate", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 1 --samples 2", "sft samples no attempts", "leave out --samples"),
    ("train sft --out {out} --split held_out --steps 1", "held_out", "choose another"),
    ("train alchemy --out {out} --steps 1", "unknown algorithm 'alchemy'", "choose one of sft"),
    ("train sft --out /dev/null/out --tasks {tasks} --steps 1", "/dev/null is no folder that you can write into", "choose another folder"),
    ("demo --out {fix}", "--out", "is a file"),
    ("demo --out /dev/null/out", "/dev/null is no folder that you can write into", "choose another folder"),
    ("demo --seed -1", "--seed", "greater than or equal to"),
    ("demo --sandbox chroot --out {out}", "chroot", "bubblewrap"),
]  # fmt: skip
ROWS = [*PATCHES, *TASK_FILES, *OPTIONS, *RUNS, *EVALUATIONS]


@pytest.mark.parametrize(
    ("line", "fragments"), [(line, rest) for line, *rest in ROWS], ids=[row[0][:90] for row in ROWS]
)
def test_a_bad_input_is_refused_in_a_few_lines(regrade, words_of, tmp_path, line, fragments):
    outcome = regrade(*words_of(line))
    check(outcome.code, outcome.out, outcome.err, tuple(fragments))
    assert not (tmp_path / "out").exists()


TASK: dict[str, object] = {
    "id": "one", "instruction": "mend it", "repository": "library", "fail_to_pass": ["tests/test_calc.py::test_add"],
    "pass_to_pass": ["tests/test_calc.py::test_half"],
}  # fmt: skip
EXPLODING = gzip.compress(b" " * (64 << 20))
KEYS: list[tuple[dict[str, object], str, str]] = [
    ({"requirements": ["-r other.txt"]}, "the pip option \"-r other.txt\"", "set pinned packages only"),
    ({"requirements": ["--index-url=http://x"]}, "the pip option", "set pinned packages only"),
    ({"requirements": "pytest"}, "'requirements' must be a list of strings", "found \"pytest\""),
    ({"python_path": ["../other"]}, "'python_path' contains \"../other\"", "set a path inside the repository"),
    ({"python_path": ["/tmp"]}, "'python_path' contains \"/tmp\"", "set a path inside the repository"),
    ({"fail_to_pass": []}, "'fail_to_pass' is empty", "name at least one test"),
    ({"fail_to_pass": "all"}, "'fail_to_pass' must be a list of strings", "found \"all\""),
    ({"fail_to_pass": ["a\0b"]}, "'fail_to_pass[0]'", "without NUL"),
    ({"pass_to_pass": ["tests/test_calc.py::test_add"]}, "in 'fail_to_pass' and in 'pass_to_pass'", "leave it in one"),
    ({"repository": "gone"}, "is not a folder", "relative to the task file"),
    ({"repository": "/"}, "root of the file system", "set the folder of one repository"),
    ({"package": "boltons"}, "set either 'repository'", "or 'package'"),
    ({"base_patch": "mend it"}, "'base_patch' is not a patch", "unified diff"),
    ({"base_patch": "--- a/no.py\n+++ b/no.py\n@@ -1 +1 @@\n-a\n+b\n"}, "'base_patch' does not apply", "No such file"),
    ({"reference": ""}, "'reference' changes nothing", "omit the key"),
    ({"limits": {"wall_seconds": 0}}, "'wall_seconds' must be a number above 0", "found 0"),
    ({"limits": {"seconds": 1}}, "unknown key 'seconds'", "known keys: file_mb"),
    ({"target": {"file": "no.py", "function": "f", "first_line": 1, "last_line": 2}}, "no file 'no.py'", "set a path"),
    ({"target": {"file": "calc.py", "function": "f", "first_line": 9, "last_line": 900}}, "lines 9 to 900", "count from 1"),
    ({"instruction": None}, "'instruction' must be a string", "found null"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "what", "remedy"), KEYS, ids=[json.dumps(keys)[:60] for keys, *_ in KEYS])
def test_a_bad_key_of_a_task_is_refused_in_a_few_lines(regrade, tasks, keys, what, remedy):
    path = tasks.with_name("bad.json")
    path.write_text(json.dumps({**TASK, **keys}))
    outcome = regrade("tasks", "list", path)
    check(outcome.code, outcome.out, outcome.err, ("bad.json, task 1", what, remedy))


def test_two_tasks_of_one_name_are_refused(regrade, tasks):
    path = tasks.with_name("bad.json")
    path.write_text(json.dumps([TASK, TASK]))
    outcome = regrade("tasks", "list", path)
    check(outcome.code, outcome.out, outcome.err, ("the id 'one' occurs twice", "ids must be unique"))


POLICIES: list[tuple[str, str, str]] = [
    ("name = 'a'", "what is it?", "give one of command, endpoint"),
    ("scripted = 'king'", "no scripted policy 'king'", "choose no-op, reference, mutants"),
    ("command = ''", "command", "give"),
    ("command = 'a \"b'", "cannot be split into words", "No closing quotation"),
    ("command = 'true'\nseconds = inf", "'seconds' must be a number", "at most 1,000,000,000"),
    ("endpoint = 'http://x'\nmodel = 'm'\ntries = 99999999999", "'tries' must be an integer", "at most 1,000,000"),
    ("endpoint = 'http://x'\nmodel = 'm'\ncolour = 1", "unknown key 'colour'", "known keys: api"),
    ("predictions = 'gone.jsonl'", "gone.jsonl", "pass the path of a readable file"),
    ("checkpoints = 'gone'", "there is no folder", "name the one"),
    ("scripted = 'no-op'\nrole = 'king'", "'role' must be one of", "'baseline'"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "what", "remedy"), POLICIES, ids=[row[0] for row in POLICIES])
def test_a_bad_policy_is_refused_in_a_few_lines(regrade, tasks, tmp_path, table, what, remedy):
    path = tmp_path / "bad.toml"
    path.write_text(f"[[policy]]\n{table}\n")
    outcome = regrade("evaluate", "--policies", path, "--tasks", tasks, "--out", tmp_path / "out")
    check(outcome.code, outcome.out, outcome.err, (what, remedy))
    assert not (tmp_path / "out").exists()


CHOICES: list[tuple[str, str, str]] = [
    ("colour = 1", "unknown key 'colour'", "known keys: deselect"),
    ("tests = 'tests'", "'tests' must be a list of strings", "found \"tests\""),
    ("tests = ['../other']", "\"../other\"", "pass a path relative to the repository"),
    ("python-path = ['/tmp']", "\"/tmp\"", "pass a path relative to the repository"),
    ("python-path = ['calc/__init__.py']", "calc/__init__.py", "pass a folder, not a file"),
    ("time-limit = inf", "'time-limit' must be a number", "at most 1,000,000,000"),
    ("test-timeout = -1", "'test-timeout' must be a number", "of at least 0.1"),
    ("tests = []\ntests = []", "Cannot overwrite a value (at line 3", "correct that line"),
    ("tests = ['gone']", "has no such file or folder", "--tests \"gone\""),
]  # fmt: skip


@pytest.mark.parametrize(("table", "what", "remedy"), CHOICES, ids=[row[0] for row in CHOICES])
def test_a_bad_setting_of_the_repository_is_refused_in_a_few_lines(regrade, repo, fix, table, what, remedy):
    (repo / "pyproject.toml").write_text(f"[tool.regrade]\n{table}\n")
    outcome = regrade("score", fix, "--repo", repo)
    check(outcome.code, outcome.out, outcome.err, (what, remedy))


PROCESSES: list[Row] = [
    ("score @zero.diff --repo {repo}", "is a device", "give a file"),
    ("score /dev/stdin --repo {repo}", "expected a unified diff", "`git diff > fix.diff` writes one"),
    ("tasks list @fifo.jsonl", "pipe or a device", "save its content in a file"),
    ("explain {fix} --repo {repo} --hunks --budget 1e30", "--budget", "valid integer"),
    ("rewards check @exits.py:mine", "exits.py:1: SystemExit", ""),
    ("train sft --out {out} --tasks {tasks} --minutes inf", "--minutes", "less than or equal to"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "fragments"), [(line, rest) for line, *rest in PROCESSES], ids=[x[0] for x in PROCESSES]
)
def test_a_bad_input_is_refused_by_the_real_command(words_of, tmp_path, cache, line, fragments):
    done = subprocess.run(
        [*REGRADE, *words_of(line)], cwd=ROOT, env={**os.environ, "REGRADE_CACHE": str(cache)}, input="Please mend.\n",
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    check(done.returncode, done.stdout, done.stderr, tuple(fragments))
    assert not (tmp_path / "out").exists()


def test_a_pipe_of_the_shell_is_a_patch(fix):
    """`score <(git diff)`; also one whose writer has ended, and an empty one."""
    code = (
        "import sys; from regrade.cli.jobs import read_patch; print([read_patch(word).text for word in sys.argv[1:]])"
    )
    command = 'exec "$0" -c "$1" <(cat "$2") <(sleep 0.2; cat "$2") <(true)'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, code, fix], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert done.stdout.strip() == str([fix.read_text(), fix.read_text(), ""])


def test_a_named_pipe_with_a_writer_is_a_patch(tmp_path, fix):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen(["sh", "-c", f"sleep 0.3; cat {fix} > {pipe}"])
    assert read_patch(str(pipe)).text == fix.read_text()
    assert writer.wait(10) == 0


def test_a_compressed_file_is_not_expanded_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("regrade.datasets.json_text.LARGEST", 1 << 20)
    (path := tmp_path / "tasks.json.gz").write_bytes(EXPLODING)
    with pytest.raises(UserError, match="has more than 1,048,576 bytes: give a smaller file"):
        read_text(path)
