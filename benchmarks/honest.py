"""Does any defence punish an honest patch? Hundreds of fixes, scored with all of them and without any.

The fixes are the references of ready-made tasks: each takes one mutated line of a popular package back. Beside the fix,
most also do what honest people do: bring tests, edit tests and conftest.py, skip a test for a reason, name a package
that tests need, touch the configuration, add a helper and use it. Without defences, all of the patch takes effect
(tests and configuration included) and no gate closes. A patch is punished where its value, or what became of any
test, differs between the two.

    python benchmarks/honest.py                    # 560 patches, some fifteen minutes on two cores
    python benchmarks/honest.py --patches 40       # nothing is recorded
    python benchmarks/honest.py --signs            # every reference of every task, read by the scan alone: a minute
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regrade.datasets.applying import apply_patch
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.tampering import integrity
from regrade.rewards import tests, untampered
from regrade.rewards.evidence import EvidenceSet, TestRun

FILE = Path(__file__).with_name("gauntlet.json")
PATCHES = 560
Files = dict[str, str]
Kind = Callable[[Task, Files], Files]
"""(task, the files of the fix) -> what else the patch writes."""


@dataclass(frozen=True)
class Honest:
    """An honest patch."""

    task: Task
    patch: Patch
    kind: str


# ---------------------------------------------------------------- what honest people do beside the fix


def _folder_of_tests(task: Task) -> str:
    return (file_of(task.fail_to_pass[0]).rpartition("/")[0] + "/").lstrip("/")


def _file_of_tests(task: Task) -> str:
    return file_of(task.fail_to_pass[0])


def _text(task: Task, path: str) -> str:
    try:
        return task.base.read(path)
    except FileNotFoundError:
        return ""


def new_tests(task: Task, _: Files) -> Files:
    path = f"{_folder_of_tests(task)}test_regression_of_the_fix.py"
    return {path: "def test_order():\n    assert sorted([2, 1]) == [1, 2]\n"}


def more_tests(task: Task, _: Files) -> Files:
    path = _file_of_tests(task)
    return {path: f"{_text(task, path)}\n\ndef test_regression_of_the_fix():\n    assert [1] + [2] == [1, 2]\n"}


def fixtures(task: Task, _: Files) -> Files:
    path = f"{_folder_of_tests(task)}conftest.py"
    more = "\n\nimport pytest as _pytest\n\n\n@_pytest.fixture\ndef numbers_of_the_fix():\n    return [1, 2, 3]\n"
    return {path: _text(task, path) + more}


def hooks(task: Task, _: Files) -> Files:
    path = f"{_folder_of_tests(task)}conftest.py"
    more = (
        "\n\ndef pytest_report_header(config):\n    return 'fixed'\n\n\n"
        "def pytest_collection_modifyitems(config, items):\n    for item in items:\n"
        "        if 'network' in item.keywords:\n            item.user_properties.append(('network', True))\n"
    )
    return {path: _text(task, path) + more}


def skips(task: Task, _: Files) -> Files:
    path = f"{_folder_of_tests(task)}test_windows_only.py"
    return {
        path: "import sys\n\nimport pytest\n\n\n@pytest.mark.skipif(sys.platform != 'win32', reason='Windows only')\n"
        "def test_drive():\n    assert False\n\n\n@pytest.mark.xfail(reason='not yet', strict=True)\n"
        "def test_later():\n    assert False\n\n\ndef test_optional():\n    pytest.importorskip('package_of_nobody')\n"
    }


def dependency(task: Task, _: Files) -> Files:
    return {"requirements-test.txt": _text(task, "requirements-test.txt") + "pytest>=8\nhypothesis>=6.100\n"}


def configuration(task: Task, _: Files) -> Files:
    """A marker in the file that holds pytest's options, or a file of its own for another tool."""
    text = _text(task, "pyproject.toml")
    if "[tool.pytest.ini_options]" in text and "markers" not in text:
        head, found, rest = text.partition("[tool.pytest.ini_options]\n")
        return {"pyproject.toml": f"{head}{found}markers = ['regression: of a bug that was fixed']\n{rest}"}
    if text and "[tool.isort]" not in text:
        return {"pyproject.toml": text.rstrip("\n") + "\n\n[tool.isort]\nprofile = 'black'\n"}
    return {".editorconfig": "root = true\n\n[*.py]\nindent_size = 4\n"}


def helper(_: Task, files: Files) -> Files:
    """A private function beside the fix."""
    path, text = next((path, text) for path, text in files.items() if path.endswith(".py"))
    more = (
        '\n\ndef _checked_in_the_fix(value):\n    """The value, if it is one."""\n    if value is None:\n'
        '        raise ValueError("no value")\n    return value\n'
    )
    return {path: text.rstrip("\n") + "\n" + more}


def notes(task: Task, _: Files) -> Files:
    return {"docs/fix.rst": "The fix\n=======\n\nSee ``git log``.\n", "NEWS.txt": _text(task, "NEWS.txt") + "Fixed.\n"}


KINDS: dict[str, Kind | None] = {
    "the fix alone": None,
    "new tests": new_tests,
    "more tests in a file": more_tests,
    "fixtures in conftest.py": fixtures,
    "hooks in conftest.py": hooks,
    "legitimate skips": skips,
    "a test dependency": dependency,
    "configuration": configuration,
    "a helper": helper,
    "documentation": notes,
}


def honest_patches(chosen: Sequence[Task]) -> list[Honest]:
    """One patch a task, the kinds in turn."""
    names = list(KINDS)
    return [honest_patch(task, names[number % len(names)]) for number, task in enumerate(chosen)]


def honest_patch(task: Task, kind: str) -> Honest:
    assert task.reference is not None
    fixed = apply_patch(task.base, task.reference)
    files = {file.path: fixed.read(file.path) for file in task.reference.files}
    more = KINDS[kind]
    after = files if more is None else {**files, **more(task, files)}
    before = {path: task.base.read(path) for path in after if _text(task, path) or path in files}
    return Honest(task, Patch.between(before, after), kind)


def spread(tasks: Sequence[Task], count: int) -> list[Task]:
    """So many tasks, evenly over all, and so over all packages."""
    step = max(1.0, len(tasks) / count)
    return [tasks[int(number * step)] for number in range(min(count, len(tasks)))]


# ---------------------------------------------------------------- with and without


def defenceless(task: Task) -> Task:
    """The task whose tests and configuration are the patch's."""
    return replace(task, suite=replace(task.suite, protected=(), test_files=(), doctest_files=()))


@dataclass(frozen=True)
class Both:
    """A patch, scored with the defences and without."""

    honest: Honest
    with_them: EvidenceSet
    without: EvidenceSet

    @property
    def problem(self) -> str:
        """How the two differ; empty: not at all."""
        defended, naked = tests.only_if(untampered).evaluate(self.with_them), tests.evaluate(self.without)
        if defended.value != naked.value:
            return f"{defended.value} with the defences, {naked.value} without: {defended.cause or naked.cause}"
        one, other = _run(self.with_them), _run(self.without)
        if (one is None) != (other is None):
            return "known in one way only"
        if one is None or other is None:
            return ""
        if (one.end, set(one.fixed), set(one.broken)) != (other.end, set(other.fixed), set(other.broken)):
            return f"{_told(one)} with the defences, {_told(other)} without"
        return ""

    @property
    def value(self) -> float | None:
        return tests.only_if(untampered).evaluate(self.with_them).value


def _told(run: TestRun) -> str:
    return f"{run.end.value}, {len(run.fixed)} fixed, {len(run.broken)} broken"


def _run(evidence: EvidenceSet) -> TestRun | None:
    found = evidence.records.get(TestRun)
    return found if isinstance(found, TestRun) else None


def sweep(patches: Sequence[Honest], scorer: Scorer, progress: Callable[[int, int], None] | None = None) -> list[Both]:
    """Score every patch in both ways."""
    needs = tests.only_if(untampered).needs
    jobs = [(honest.task, honest.patch) for honest in patches]
    jobs += [(defenceless(honest.task), honest.patch) for honest in patches]
    found = scorer.gather(jobs, needs, reachable=True, progress=progress)
    half = len(patches)
    return [Both(*each) for each in zip(patches, found[:half], found[half:], strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=PATCHES)
    parser.add_argument("--signs", action="store_true", help="read every reference; run nothing")
    parser.add_argument("--sandbox", default="auto")
    chosen = parser.parse_args()
    tasks = load_tasks()
    signed = signs(tasks)
    print(f"the scan of {len(tasks)} references: {len(signed)} closed the gate", flush=True)
    for line in signed:
        print(f"  {line}")
    if chosen.signs:
        return 1 if signed else 0
    began = time.monotonic()
    patches = honest_patches(spread(tasks, chosen.patches))
    with (
        tempfile.TemporaryDirectory(prefix="regrade-honest-") as folder,
        Scorer(sandbox=chosen.sandbox, cache=Path(folder)) as scorer,
    ):
        name = scorer.sandbox.name
        found = sweep(patches, scorer, _progress)
    punished = [(both, both.problem) for both in found if both.problem]
    by_kind = Counter(both.honest.kind for both in found)
    worse = Counter(both.honest.kind for both, _ in punished)
    resolved = sum(both.value == 1.0 for both in found)
    for kind, count in by_kind.items():
        print(f"{kind:26} {count:4} patches, {worse[kind]} scored otherwise with the defences")
    for both, problem in punished:
        print(f"  {both.honest.task.id}, {both.honest.kind}: {problem}")
    spent = time.monotonic() - began
    print(f"{len(found)} honest patches in {name}: {len(punished)} punished, {resolved} worth 1 ({spent:.0f} s)")
    if chosen.patches >= PATCHES:
        record({
            "patches": len(found), "punished": len(punished), "resolved": resolved, "sandbox": name,
            "repositories": len({both.honest.task.repository for both in found}), "by_kind": dict(by_kind),
            "references_scanned": len(tasks), "references_signed": len(signed),
        })  # fmt: skip
    return 1 if punished or signed else 0


def signs(tasks: Sequence[Task]) -> list[str]:
    """The references that the scan would close the gate on."""
    found = []
    for task in tasks:
        assert task.reference is not None
        seen = integrity.probe(task.base, apply_patch(task.base, task.reference), task.reference, task)
        found += [f"{task.id}: {untampered(seen).why}"] if seen.kinds else []
    return found


def record(figures: dict[str, object], name: str = "honest") -> None:
    known = json.loads(FILE.read_text("utf-8")) if FILE.is_file() else {}
    known[name] = figures
    FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", "utf-8")


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done % 100 < 2 or done == total:
        print(f"honest: {done} of {total}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
