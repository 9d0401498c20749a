"""Static probes on hostile files: each ends within its limit, in a process that can be killed."""

from __future__ import annotations

import random
import time

import pytest

from regrade.datasets.line_changes import changed_numbers
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.evaluators.sandboxes import SandboxError
from regrade.evaluators.scoring import static_workers
from regrade.evaluators.scoring.probes import STATIC
from regrade.evaluators.scoring.static_workers import StaticWorkers
from regrade.evaluators.static.dependencies.facts import facts
from regrade.evaluators.static.files import ChangedFile, with_renames
from regrade.evaluators.static.languages import language_of
from regrade.evaluators.static.tampering.patterns import pattern_signs
from regrade.rewards import complexity, readability, style, untampered
from regrade.rewards.evidence import EvidenceSet, Impact, Integrity, LintDelta

SIZE = 300_000
CPU_SECONDS = 10.0


def repeated(unit: str) -> str:
    return unit * (SIZE // len(unit))


HOSTILE = {
    "chain.py": "x = a" + repeated(".b") + "\n",
    "calls.py": "x = a" + repeated(".b()") + "\n",
    "sum.py": "x = 1" + repeated(" + 1") + "\n",
    "brackets.py": "x = " + repeated("(") + "\n",
    "functions.py": "".join(f"def f{index}(a):\n    return a + {index}\n" for index in range(SIZE // 35)),
    "methods.py": "class A:\n" + "".join(f"    def f{index}(self): return self.f\n" for index in range(SIZE // 35)),
    "ifs.py": "def f(a):\n" + "".join(f"    if a == {index}: return a\n" for index in range(SIZE // 30)),
    "elifs.py": "def f(a):\n    if a: pass\n" + "".join(f"    elif a == {index}: pass\n" for index in range(9_000)),
    "nested.py": "".join(f"{' ' * depth}def f{depth}():\n" for depth in range(95)) + " " * 95 + "pass\n",
    "classes.py": "".join(f"{' ' * depth}class F{depth}:\n" for depth in range(95)) + " " * 95 + "pass\n",
    "name.py": f"{'a' * SIZE} = 1\n",
    "text.py": f"x = '{'a' * SIZE}'\n",
    "lines.py": "\n" * SIZE,
    "imports.py": "".join(f"import a{index}.b.c\n" for index in range(SIZE // 20)),
    "dots.py": "from " + "." * SIZE + " import a\n",
    "lambda.py": "x = " + "lambda: " * 5_000 + "1\n",
    "chain.js": "x = a" + repeated(".b") + ";\n",
    "assert.js": repeated("assert.") + "a;\n",
    "asserts.js": repeated("assert[") + "\n",
    "spaces.js": "assert.a" + " " * SIZE + "\n",
    "objects.js": repeated("Object.definePropert") + "\n",
    "arrows.js": "x = " + "() => " * 20_000 + "1;\n",
    "chain.ts": "x = a" + repeated(".b") + ";\n",
    "path.rs": "fn f() { a" + repeated("::b") + "; }\n",
    "less.rs": "fn f() { a" + repeated("::<b") + "; }\n",
    "macro.rs": "fn f() { m!(" + repeated("a::") + "b); }\n",
    "lines.java": "\n" * SIZE + "class A {}\n",
    "chain.java": "class A { int f() { return a" + repeated(".b") + "; } }\n",
    "receiver.go": f"package a\n\nfunc (a {'b' * SIZE} // )\n) F() {{}}\n",
    "lines.go": "package a\n" + "\n" * SIZE,
}


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(static_workers, "CPU_SECONDS", CPU_SECONDS)
        pool = StaticWorkers()
        yield pool
        pool.close()


def task_of(base: Tree) -> Task:
    return Task(
        id="t", repository="r", base=base, instruction="", fail_to_pass=("tests/test_a.py::test",), pass_to_pass=()
    )


def evidence_of(pool: StaticWorkers, base: Tree, files: dict[str, str]) -> EvidenceSet:
    """The evidence of a patch that writes the files."""
    patch = Patch.between({path: base.read_or_none(path) or "" for path in files if base.read_or_none(path)}, files)
    after = base.with_files(files)
    task = task_of(base)
    return EvidenceSet({kind: pool.evidence(kind, base, after, patch, task) for kind in STATIC}, {}, "in-process")


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_every_probe_ends_within_its_limit(workers, write_files, name):
    base = write_files({"a.py": "def f():\n    return 1\n"})
    files = {name: HOSTILE[name]}
    patch, after, task = Patch.between({}, files), base.with_files(files), task_of(base)
    for kind in STATIC:
        began = time.monotonic()
        record = workers.evidence(kind, base, after, patch, task)
        assert isinstance(record, kind)
        assert time.monotonic() - began < 10 * CPU_SECONDS  # on a busy machine


@pytest.mark.parametrize("name", ["chain.py", "chain.js", "path.rs", "chain.java"])
def test_long_chains_take_linear_time(name):
    language = language_of(name)
    assert language is not None
    began = time.process_time()
    facts(HOSTILE[name], language)
    assert time.process_time() - began < CPU_SECONDS


@pytest.mark.parametrize("name", ["assert.js", "asserts.js", "spaces.js", "objects.js"])
def test_patterns_take_linear_time(name):
    (file,) = Patch.between({}, {name: HOSTILE[name]}).files
    began = time.process_time()
    assert list(pattern_signs(file)) == []
    assert time.process_time() - began < CPU_SECONDS


@pytest.mark.parametrize(
    ("line", "is_sign"),
    [
        ("assert.equal = f", True),
        ("globalThis.assert.strict['equal']=f", True),
        ("assert.x; expect.y = f", True),
        ("assert.equal == f", False),
        ("assert.equal => f", False),
        ("assert.equal(a, b)", False),
    ],
)
def test_replaced_assertions_are_found(line, is_sign):
    (file,) = Patch.between({}, {"a.js": line + "\n"}).files
    assert [sign.kind for sign in pattern_signs(file)] == ["replaced assertion"] * is_sign


LINES = 20_000
DRAW = random.Random(1)
LETTERS = DRAW.choices("ab", k=40 * LINES)
TEXTS = {
    "many added lines": (
        [f"a{n}" for n in range(60_000)],
        [f"b{n}" for n in range(60_000)] + [f"a{n}" for n in range(60_000)],
    ),
    "one line repeated": (["x"] * LINES, ["x"] * (LINES // 2) + ["y"] + ["x"] * LINES),
    "two lines in any order": (LETTERS[:LINES], LETTERS[LINES : 2 * LINES]),
    "reversed": ([str(n) for n in range(LINES)], [str(n) for n in range(LINES, 0, -1)]),
    "ever shorter runs": (
        [sign for n in range(200, 0, -1) for sign in [*"a" * n, "b"]],
        [sign for n in range(1, 200) for sign in [*"a" * n, "b"]],
    ),
    "many ranges": (
        [sign for n in range(0, 20 * LINES, 800) for sign in [*LETTERS[n : n + 800], str(n)]],
        [sign for n in range(0, 20 * LINES, 800) for sign in [*LETTERS[-800 - n : -n or None], str(n)]],
    ),
    "a million blank lines": ([""] * 1_000_000, [*[""] * 500_000, "x", *[""] * 499_999, "y"]),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_difference_of_hostile_texts_takes_linear_time_and_is_one(name):
    old, new = TEXTS[name]
    file = ChangedFile("a.py", "a.py", "\n".join([*old, ""]), "\n".join([*new, ""]))
    began = time.process_time()
    removed, added = file.removed, file.added
    assert time.process_time() - began < CPU_SECONDS
    gone, come = {number for number, _ in removed}, {number for number, _ in added}
    kept = [line for number, line in enumerate(old, 1) if number not in gone]
    assert kept == [line for number, line in enumerate(new, 1) if number not in come]


def test_differences_are_as_small_as_possible_without_unique_lines():
    for _ in range(300):
        old, new = (DRAW.choices("abc", k=DRAW.randrange(12)) for _ in range(2))
        old, new = old * 2, new * 2
        removed, added = changed_numbers(old, new)
        common = [0] * (len(new) + 1)  # the longest sequence of lines that both have in common
        for line in old:
            before = common[:]
            for place, other in enumerate(new):
                common[place + 1] = before[place] + 1 if line == other else max(before[place + 1], common[place])
        assert len(old) - len(removed) == len(new) - len(added) == common[-1], (old, new)


def test_many_created_and_deleted_files_are_paired_in_linear_time():
    created = {f"new/{n}/{n}.py": (None, f"a = {n}\nb = 1\nc = 2\n") for n in range(4_000)}
    deleted = {f"old/{n}/{n}.py": (f"a = {n}\nb = 1\nc = 2\n", None) for n in range(4_000)}
    began = time.process_time()
    files = with_renames(created | deleted)
    assert time.process_time() - began < CPU_SECONDS
    assert {(file.old_path, file.path) for file in files} == {
        (f"old/{n}/{n}.py", f"new/{n}/{n}.py") for n in range(4_000)
    }


def test_a_scan_beyond_its_clock_is_caused_by_the_patch_that_wrote_the_text(write_files):
    pool = StaticWorkers(cpu_seconds=0.3)
    base = write_files({"a.py": "def f():\n    return 1\n"})
    try:
        evidence = evidence_of(
            pool, base, {"b.py": "".join(f"def f{index}(a):\n    return a\n" for index in range(40_000))}
        )
    finally:
        pool.close()
    for reward in (style, complexity, readability):
        breakdown = reward.evaluate(evidence)
        assert breakdown.value == 0.0, breakdown
        assert "b.py (not read within 0.3 s of CPU time)" in str(breakdown)
    assert evidence.records[Impact].unparsable == ("b.py (not read within 0.3 s of CPU time)",)
    assert evidence.records[Integrity].kinds == ("unreadable code",)
    assert untampered.evaluate(evidence).value == 0.0


def test_hostile_text_of_the_base_is_not_blamed_on_the_patch(write_files):
    text = "".join(f"def f{index}(a):\n    return a\n" for index in range(40_000))
    base = write_files({"a.py": text})
    pool = StaticWorkers(cpu_seconds=0.3)
    files = {"a.py": text + "# changed\n"}
    try:
        with pytest.raises(SandboxError, match="without the patch"):
            pool.evidence(LintDelta, base, base.with_files(files), Patch.between({"a.py": text}, files), task_of(base))
    finally:
        pool.close()


def test_a_killed_process_is_replaced(write_files, monkeypatch):
    monkeypatch.setattr(static_workers, "BACK_OFF", (0.05, 0.05))
    pool = StaticWorkers()
    base = write_files({"a.py": "def f():\n    return 1\n"})
    try:
        before = evidence_of(pool, base, {"a.py": "def f():\n    return 2\n"})
        (process,) = pool._idle
        process._process.kill()
        assert evidence_of(pool, base, {"a.py": "def f():\n    return 2\n"}) == before
    finally:
        pool.close()
