"""Bad input to every command: an error that says what is wrong, where, and what to do; never a stack trace or a hang.

No row runs a test suite, trains a model or fetches a package: each is refused before.
"""

from __future__ import annotations

import gzip
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SECONDS = 20
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
    ("score @full.diff --repo {repo}", "is a device", "give a file"),
    ("score @large.diff --repo {repo}", "5.0 MB", "the limit is 4 MB"),
    ("score @outside.diff --repo {repo}", "'../x' leaves the repository", "may touch only the repository's own files"),
    ("score @other.diff --repo {repo}", "calc/gone.py: No such file", "does not apply"),
    ("score @empty.diff @prose.diff --repo {missing}", "is not a folder", "give the path of a repository with --repo"),
    ("score - - --repo {repo}", "standard input", "give - once"),
    ("score", "PATCH", "Missing argument"),
    ("explain @missing.diff --repo {repo}", "No such file", "give a file with a unified diff"),
    ("explain @zero.diff --repo {repo}", "is a device", "give a file"),
    ("explain {fix} {fix} --repo {repo}", "one patch at a time", "regrade score"),
    ("explain {fix} five --repo {repo}", "not a run", "--task"),
    ("doctor --repo {repo} --reference @missing.diff", "No such file", "give a file"),
    ("doctor --repo {repo} --reference @zero.diff", "is a device", "give a file"),
]  # fmt: skip
TASK_FILES: list[Row] = [
    ("tasks list @missing.jsonl", "missing.jsonl", "pass its path"),
    ("tasks list @folder.jsonl", "contains no recipes", "regrade tasks build"),
    ("tasks list @empty.jsonl", "contains no task", "needs the keys"),
    ("tasks list @binary.jsonl", "not UTF-8", "save it as UTF-8"),
    ("tasks list @surrogate.jsonl", "surrogate.jsonl:1", "surrogate"),
    ("tasks list @unknown.json", "unknown key 'colour'", "known keys: base_patch"),
    ("tasks list @doubled.jsonl", "doubled.jsonl:1", "\"id\" occurs twice in one object: leave one"),
    ("tasks list @numbers.json", "numbers.json:1", "too many digits"),
    ("tasks list @nested.json", "nested.json:1", "nested too deeply"),
    ("tasks list @prose.json", "prose.json:1: not JSON", "column 1"),
    ("tasks list @fifo.jsonl", "pipe or a device", "save its content in a file"),
    ("tasks list @loop.jsonl", "loop.jsonl", "pass its path"),
    ("tasks list @zero.jsonl", "pipe or a device", "save its content in a file"),
    ("tasks list @full.json", "pipe or a device", "save its content in a file"),
    ("tasks list @cut.json.gz", "cut.json.gz", "pass the path of a readable file"),
    ("tasks list {tasks} --split validation", "has no splits", "omit the split"),
    ("tasks list --split nothing", "nothing", "demonstrations"),
    ("tasks show five {tasks}", "no task 'five'", "see `regrade tasks list`"),
    ("tasks show one @fifo.json", "pipe or a device", "save its content"),
    ("tasks show one @doubled.json", "doubled.json", "leave one"),
    ("tasks show", "TASK_ID", "Missing argument"),
    ("tasks validate @missing.json", "missing.json", "pass its path"),
    ("tasks validate @zero.json.gz", "pipe or a device", "save its content"),
    ("tasks validate {tasks} --sandbox chroot", "chroot", "bubblewrap"),
    ("tasks validate {tasks} --workers 0", "--workers", "greater than or equal to"),
    (f"tasks validate {{tasks}} --workers {10**21}", "--workers", "less than or equal to"),
    ("tasks build --out {out} --package nothing", "nothing", "anytree"),
    ("tasks build --out /dev/null/out --package parse", "/dev/null is no folder that you can write into", "choose another folder"),
    ("tasks build --out {fix} --package parse", "--out", "is a file"),
    ("tasks build --out {out} --seed -1", "--seed", "greater than or equal to"),
    ("score {fix} --tasks @missing.jsonl", "missing.jsonl", "pass its path"),
    ("score {fix} --tasks @fifo.jsonl", "pipe or a device", "save its content"),
    ("score {fix} --tasks @doubled.json --task one", "doubled.json", "leave one"),
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
    (f"doctor {{tasks}} --mutants {10**30}", "--mutants", "less than or equal to"),
    (f"doctor {{tasks}} --seed {'9' * 5000}", "--seed", "integer"),
    ("doctor {tasks} --limit 0", "--limit", "greater than or equal to"),
]  # fmt: skip
OPTIONS: list[Row] = [
    (f"score {{fix}} --repo {{repo}} --workers {10**21}", "--workers", "less than or equal to"),
    ("score {fix} --repo {repo} --workers 1.5", "--workers", "valid integer"),
    ("score {fix} --repo {repo} --time-limit nan", "--time-limit", "less than or equal to"),
    ("score {fix} --repo {repo} --time-limit inf", "--time-limit", "less than or equal to"),
    ("score {fix} --repo {repo} --time-limit 1e30", "--time-limit", "less than or equal to"),
    ("score {fix} --repo {repo} --test-timeout nan", "--test-timeout", "less than or equal to"),
    ("score {fix} --repo {repo} --test-timeout -1", "--test-timeout", "greater than or equal to"),
    ("score {fix} --repo {repo} --sandbox chroot", "chroot", "bubblewrap"),
    ("score {fix} --repo {repo} --assured NaN", "NaN", "tripwired"),
    ("score {fix} --repo {fix}", "is not a folder", "give the path of a repository with --repo"),
    ("score {fix} --repo /dev/zero", "is not a folder", "give the path of a repository"),
    ("score {fix} --repo {repo} --colour", "--colour", "No such option"),
    ("score {fix} --repo {repo} --reward nothing", "unknown reward 'nothing'", "choose one of"),
    ("score {fix} --repo {repo} --reward @missing.py:mine", "there is no file", "pass FILE:NAME"),
    ("score {fix} --repo {repo} --reward @fifo.py:mine", "there is no file", "pass FILE:NAME"),
    ("score {fix} --repo {repo} --reward @exits.py:mine", "exits.py:1", "SystemExit"),
    ("score {fix} --repo {repo} --reward learned", "needs a reward model", "pass its folder with --reward-model"),
    ("score {fix} --repo {repo} --reward learned --reward-model @missing.model", "missing.model", "train reward-model"),
    ("score {fix} --repo {repo} --reward learned --reward-model @zero.model", "zero.model", "train reward-model"),
    ("score {fix} --repo {repo} --reward learned --reward-model @folder.model", "folder.model", "train reward-model"),
    *(
        (f"explain {{fix}} --repo {{repo}} --hunks --budget {value}", "--budget", fragment)
        for value, fragment in {"7": "greater than or equal to", "-1": "greater than or equal to", "1e30": "integer", "nan": "integer", "inf": "integer",
                                str(10**30): "less than or equal to"}.items()
    ),
    (f"explain {{fix}} --repo {{repo}} --hunks --seed {10**30}", "--seed", "less than or equal to"),
    ("explain {fix} --repo {repo} --hunks --seed -1", "--seed", "greater than or equal to"),
    ("explain {fix} --repo {repo} --json --html", "--json and --html", "give one of them"),
    ("explain {fix} --repo {repo} --fine", "--fine needs --hunks", "give both, or neither"),
    ("explain {fix} --repo {repo} --sample -1", "--sample", "greater than or equal to"),
    ("rewards check {fix}:x", "not a Python file", "must end in .py"),
    ("rewards check @code.py:mine", "code.py:1", "SyntaxError"),
    ("rewards check @plain.py:mine", "plain function", "decorate it with @reward"),
    ("rewards check @plain.py:yours", "has no 'yours'", "its rewards: none"),
    ("rewards check @zero.py:mine", "there is no file", "pass FILE:NAME"),
    ("rewards check tests --examples 0", "--examples", "greater than or equal to"),
    ("rewards check tests --examples 99999999999", "--examples", "less than or equal to"),
    ("rewards list extra", "extra", "unexpected extra argument"),
    ("cache prune --to nan", "--to", "less than or equal to"),
    ("cache prune --to -1", "--to", "greater than or equal to"),
    ("cache prune --to x", "--to", "valid number"),
    ("cache clear nothing", "no part 'nothing'", "give one or more of"),
    ("cache clear", "PART", "Missing argument"),
    ("fly", "fly", "No such command"),
    ("--reward tests score", "--reward", "No such option"),
]  # fmt: skip
RUNS: list[Row] = [
    ("explain @missing.jsonl one", "no such file", "regrade evaluate"),
    ("explain @zero.jsonl one", "pipe or a device", "save its content"),
    ("explain @fifo.jsonl one", "pipe or a device", "save its content"),
    ("explain @run:missing one", "no rows", "regrade evaluate"),
    ("explain @unknown.jsonl one two", "one attempt at a time", "give the task"),
    ("compare @missing.run", "no such file", "regrade evaluate"),
    ("compare @empty.jsonl", "no rows", "regrade evaluate"),
    ("compare @binary.jsonl", "line 1: not JSON", "delete that line"),
    ("compare @numbers.jsonl", "line 1: not JSON", "delete that line"),
    ("compare @nested.jsonl", "line 1: not JSON", "delete that line"),
    ("compare @doubled.jsonl", "line 1: not JSON (the key \"id\" occurs twice", "delete that line"),
    ("compare @unknown.jsonl", "row 1: not a row of an evaluation", "regrade evaluate"),
    ("compare @surrogate.jsonl", "row 1", "surrogate"),
    ("compare @fifo.jsonl", "pipe or a device", "save its content"),
    ("compare @full.jsonl", "pipe or a device", "save its content"),
    ("compare @loop.jsonl", "no such file", "regrade evaluate"),
    ("compare @run:prose", "manifest.json:1: not JSON", "restore it or start the run in a new folder"),
    ("compare @run:empty", "manifest.json:1: not JSON", "restore it or start the run in a new folder"),
    ("compare @run:doubled", "occurs twice", "restore it or start the run in a new folder"),
        ("compare @missing.run --fail-on sometimes", "--fail-on", "'regressed'"),
    ("compare @missing.run --json --markdown", "--json and --markdown", "give one of them"),
    ("rescore @missing.run --reward tests", "not a run", "regrade evaluate"),
    ("rescore @run:fifo --reward tests", "manifest.json: it is a pipe or a device", "restore it or start"),
    ("rescore @run:zero --reward tests", "manifest.json: it is a pipe or a device", "restore it or start"),
    ("rescore @run:surrogate --reward tests", "manifest.json: damaged", "restore it or start"),
    ("rescore @run:unknown --reward tests", "no rows of any policy", "give the folder of an evaluation"),
    ("rescore @run:missing", "--reward", "Missing option"),
    ("report @missing.run", "not a run", "regrade evaluate"),
    ("report @prose.txt", "not a run", "regrade evaluate"),
    ("report @run:binary", "manifest.json is not UTF-8", "restore it or start"),
    ("report @run:nested", "nested too deeply", "restore it or start"),
    ("report @run:numbers", "too many digits", "restore it or start"),
    ("report @run:loop", "not a run", "regrade evaluate"),
    ("report", "RUN", "Missing argument"),
    ("rewards audit @missing.jsonl", "missing.jsonl", "regrade evaluate"),
    ("rewards audit @fifo.jsonl", "pipe or a device", "save its content"),
    ("rewards audit @doubled.jsonl", "occurs twice", "delete that line"),
    ("evaluate plan @missing.jsonl", "no such file", "regrade evaluate"),
    ("evaluate plan @zero.jsonl", "pipe or a device", "save its content"),
    ("evaluate plan", "no discordance", "--discordance 0.1"),
    ("evaluate plan --from @missing.jsonl", "--from", "No such option"),
    ("evaluate plan @empty.jsonl --discordance 0.1", "not both", "give a run or --discordance"),
    ("evaluate plan --discordance nan", "found nan", "must be in (0, 1]"),
    ("evaluate plan --discordance 2", "found 2.0", "must be in (0, 1]"),
    ("evaluate plan --discordance 0.1 --effect inf", "found inf", "must be between 0 and 1"),
    ("evaluate plan --discordance 0.1 --power 1", "found 1.0", "must be between 0.5 and 1"),
    ("evaluate plan --discordance 0.1 --alpha nan", "found nan", "must be between 0 and 0.5"),
    ("evaluate plan --discordance 0.1 --margin -1", "found -1.0", "must be between 0 and 1"),
    (f"evaluate plan --discordance 0.1 --attempts {10**30}", "--attempts", "less than or equal to"),
    ("evaluate plan --discordance 0.1 --declare {fix}", "--declare", "is a file"),
]  # fmt: skip
EVALUATIONS: list[Row] = [
    ("evaluate --tasks {tasks} --out {out}", "no policy", "give POLICY"),
    ("evaluate no-op --tasks @missing.jsonl --out {out}", "missing.jsonl", "pass its path"),
    ("evaluate no-op --tasks @fifo.jsonl --out {out}", "pipe or a device", "save its content"),
    ("evaluate no-op --tasks {tasks} --out /dev/null/out", "/dev/null is no folder that you can write into", "choose another folder"),
    ("evaluate no-op --tasks {tasks} --out {fix}", "--out", "is a file"),
    ("evaluate no-op --tasks {tasks}", "--out", "Missing option"),
    ("evaluate no-op --tasks {tasks} --out {out} --role king", "--role", "'baseline'"),
    ("evaluate no-op --tasks {tasks} --out {out} --baseline king", "'king' is none of the policies", "no-op"),
    ("evaluate no-op no-op --tasks {tasks} --out {out}", "the name 'no-op'", "NAME=POLICY"),
    ("evaluate no-op --tasks {tasks} --out {out} --validation @missing.jsonl --temperature 0 --temperature 1",
     "missing.jsonl", "pass its path"),
    ("evaluate no-op --tasks {tasks} --out {out} --temperature nan", "--temperature", "less than or equal to"),
    ("evaluate no-op --tasks {tasks} --out {out} --temperature inf", "--temperature", "less than or equal to"),
    (f"evaluate no-op --tasks {{tasks}} --out {{out}} --samples {10**30}", "--samples", "less than or equal to"),
    (f"evaluate no-op --tasks {{tasks}} --out {{out}} --requests {10**30}", "--requests", "less than or equal to"),
    ("evaluate no-op --tasks {tasks} --out {out} --answer-limit inf", "--answer-limit", "less than or equal to"),
    ("evaluate no-op --tasks {tasks} --out {out} --answer-limit nan", "--answer-limit", "less than or equal to"),
    ("evaluate no-op --tasks {tasks} --out {out} --seed -1", "--seed", "greater than or equal to"),
    ("evaluate endpoint:x --tasks {tasks} --out {out}", "behind an endpoint", "--endpoint"),
    ("evaluate endpoint:x --endpoint ftp://x --tasks {tasks} --out {out}", "ftp://x", "http"),
    ("evaluate command:no-such-program --tasks {tasks} --out {out}", "'no-such-program' is not installed", "give a program's name"),
    ("evaluate --policies @missing.toml --tasks {tasks} --out {out}", "missing.toml", "pass the path"),
    ("evaluate --policies @fifo.toml --tasks {tasks} --out {out}", "pipe or a device", "save its content"),
    ("evaluate --policies @binary.toml --tasks {tasks} --out {out}", "not UTF-8", "save it as UTF-8"),
    ("evaluate --policies @toml.toml --tasks {tasks} --out {out}", "no TOML", "line 1"),
    ("evaluate --policies @twice.toml --tasks {tasks} --out {out}", "no TOML", "line 3"),
    ("evaluate --policies @colour.toml --tasks {tasks} --out {out}", "expected one or more tables [[policy]]", "colour"),
    ("evaluate --policies @empty.toml --tasks {tasks} --out {out}", "empty.toml", "expected one or more tables"),
    ("evaluate --predictions @missing.jsonl --tasks {tasks} --out {out}", "missing.jsonl", "pass the path"),
    ("evaluate --predictions @zero.jsonl --tasks {tasks} --out {out}", "pipe or a device", "save its content"),
    ("evaluate --predictions @empty.jsonl --tasks {tasks} --out {out}", "no predictions", "empty"),
    ("evaluate --predictions @doubled.jsonl --tasks {tasks} --out {out}", "occurs twice", "leave one"),
    ("evaluate --predictions @nested.json --tasks {tasks} --out {out}", "nested too deeply", "leave out levels"),
    ("evaluate --checkpoints @missing.run --tasks {tasks} --out {out}", "there is no folder", "name the one"),
    ("evaluate --checkpoints @folder.run --tasks {tasks} --out {out}", "holds no checkpoints", "expected folders"),
    ("train sft --out {out} --tasks {tasks}", "no limit for the training", "give --steps"),
    ("train sft --out {out} --tasks @missing.jsonl --steps 1", "missing.jsonl", "pass its path"),
    ("train sft --out {out} --tasks @zero.jsonl --steps 1", "pipe or a device", "save its content"),
    ("train sft --out {out} --tasks {tasks} --minutes inf", "--minutes", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --minutes nan", "--minutes", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 0", "--steps", "greater than or equal to"),
    (f"train sft --out {{out}} --tasks {{tasks}} --steps {10**30}", "--steps", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 1 --learning-rate nan", "--learning-rate", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 1 --learning-rate inf", "--learning-rate", "less than or equal to"),
    ("train sft --out {out} --tasks {tasks} --steps 1 --samples 2", "sft samples no attempts", "leave out --samples"),
    ("train sft --out {out} --split held_out --steps 1", "held_out", "choose another"),
    ("train alchemy --out {out} --steps 1", "alchemy", "'sft'"),
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
