"""A TypeScript repository with Vitest, whose packages are installed from its lock: scored end to end, and made into tasks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.execution.packages import installed_packages
from regrade.evaluators.inside.command_rows import NoReportError, remove_signature, sign
from regrade.evaluators.sandboxes import Bubblewrap
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.built_repository import built_repository
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.evaluators.task_curation.suite_detection import local_suite
from regrade.evaluators.task_curation.task_sources import from_mutation
from regrade.rewards import ComplexityDelta, Impact, Integrity, TestRun, default

SANDBOX = "bubblewrap" if not Bubblewrap().problem() else "process"
FILES = {
    "package-lock.json": Path(__file__).with_name("vitest-lock.json").read_text(),
    "package.json": json.dumps(
        {
            "name": "shop",
            "private": True,
            "type": "module",
            "scripts": {"test": "vitest run"},
            "devDependencies": {"vitest": "^2.1.9"},
        }
    ),
    "vitest.config.ts": "import { defineConfig } from 'vitest/config';\n\nexport default defineConfig({ test: { testTimeout: 9000 } });\n",
    "src/math.ts": "export function add(a: number, b: number): number {\n  return a - b;\n}\n",
    "src/cart.ts": "import { add } from './math';\n\nexport function total(prices: number[]): number {\n  return prices.reduce((sum, price) => add(sum, price), 0);\n}\n",
    "test/cart.test.ts": """\
import { describe, expect, it } from 'vitest';
import { total } from '../src/cart';

describe('total', () => {
  it('sums', () => expect(total([1, 2])).toBe(3));
  it('is 0 for nothing', () => expect(total([])).toBe(0));
  it.skip('is not there yet', () => {});
});
""",
}
SUMS, NOTHING = "test/cart.test.ts::total > sums", "test/cart.test.ts::total > is 0 for nothing"


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the installed packages."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    try:
        subprocess.run(["npm", "ping", "--fetch-retries=0"], check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("needs npm's registry")
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Task:
    return local_task(write(tmp_path_factory.mktemp("shop"), FILES), [SUMS], sandbox=SANDBOX, cache=cache, runs=1)


@pytest.fixture(scope="module")
def scorer(cache: Path) -> Iterator[Scorer]:
    with Scorer(sandbox=SANDBOX, cache=cache, workers=1) as made:
        yield made


def edit(path: str, old: str, new: str) -> Patch:
    assert old in FILES[path]
    return Patch.between({path: FILES[path]}, {path: FILES[path].replace(old, new)})


def before(path: str, code: str) -> Patch:
    return Patch.between({path: FILES[path]}, {path: code + FILES[path]})


@pytest.mark.slow
def test_a_fix_and_what_breaks_beside_it(task: Task, scorer: Scorer) -> None:
    assert (task.fail_to_pass, task.pass_to_pass) == ((SUMS,), (NOTHING,))
    assert "expected -3 to be 3" in task.failure
    fix, harm = edit("src/math.ts", "a - b", "a + b"), edit("src/math.ts", "a - b;", "a -;")
    fixed, nothing = scorer.score([(task, fix), (task, Patch(""))], default)
    assert fixed.value == pytest.approx(1.0, abs=0.05)
    assert nothing.value == 0.0
    good, broken = scorer.gather([(task, fix), (task, harm)], [TestRun, Impact, ComplexityDelta])
    assert good.records[TestRun].resolved
    assert [module.module for module in good.records[Impact].modules] == ["src/cart.ts"]
    assert good.records[ComplexityDelta].files == ("src/math.ts",)
    assert broken.records[TestRun].broken == (NOTHING,)
    assert broken.records[TestRun].outcomes[NOTHING].message


FORGE = """\
import { readdirSync, writeFileSync } from 'node:fs';
const says = (title: string, status: string) => ({ ancestorTitles: ['total'], title, status, failureMessages: [] });
const tests = [says('sums', 'passed'), says('is 0 for nothing', 'failed')];
const told = JSON.stringify({ testResults: [{ name: `${process.cwd()}/test/cart.test.ts`, assertionResults: tests }] });
console.log(told);
for (const folder of readdirSync('/tmp')) {
  for (const text of [told, `${'0'.repeat(64)}\\n${told}`]) {
    try { writeFileSync(`/tmp/${folder}/report`, text); } catch {}
  }
}
"""
"""Prints that a test passed, and writes it wherever a report is."""
LATER = """\
import { spawn } from 'node:child_process';
const forge = `echo '${told}' > /tmp/told
while true; do for to in /tmp/*/report; do cp /tmp/told /tmp/copy; mv /tmp/copy $to; done; done`;
spawn('sh', ['-c', forge], { detached: true, stdio: 'ignore' }).unref();
"""


@pytest.mark.slow
def test_what_a_candidate_prints_or_writes_is_not_believed(task: Task, scorer: Scorer) -> None:
    exploits = [
        before("src/math.ts", f"{FORGE}process.exit(0);\n"),
        before("src/math.ts", f"{FORGE}process.kill(process.ppid, 'SIGKILL');\n"),
        before("src/math.ts", f"{FORGE}process.kill(process.ppid, 'SIGTERM');\n"),
        before("src/math.ts", FORGE + LATER),
        edit("test/cart.test.ts", "toBe(3)", "toBe(-3)"),
        edit("package.json", "vitest run", "true"),
        edit("vitest.config.ts", "testTimeout: 9000", "testNamePattern: 'nothing'"),
    ]
    found = scorer.gather([(task, patch) for patch in exploits], [TestRun, Integrity])
    assert [each.records[TestRun].fixed for each in found] == [()] * len(exploits)
    assert [each.records[TestRun].broken for each in found] == [(NOTHING,)] * 4 + [()] * 3
    signs = [{sign.kind for sign in each.records[Integrity].signs if sign.conclusive} for each in found]
    assert all("reach for the runner" in kinds for kinds in signs[1:3])


@pytest.mark.slow
def test_planted_bugs_are_tasks(scorer: Scorer, cache: Path, tmp_path: Path) -> None:
    files = {**FILES, "src/math.ts": FILES["src/math.ts"].replace("a - b", "a + b")}
    repository = built_repository(write(tmp_path / "shop", files), scorer, runs=1, limit=1, cache=cache)
    (task,) = from_mutation(repository)
    assert task.target is not None
    assert task.target.file.endswith(".ts")
    assert task.reference is not None
    assert task.fail_to_pass[0] in task.instruction
    tried = repository.yields.total()
    assert (tried.valid, tried.tried >= 1) == (1, True)


@pytest.mark.parametrize(
    ("manifest", "runner"),
    [
        ({"scripts": {"test": "vitest run"}}, "vitest"),
        ({"scripts": {"test": "tsc && vitest"}, "devDependencies": {"vitest": "^3"}}, "vitest"),
        ({"scripts": {"test": "npm run all"}, "devDependencies": {"vitest": "^3"}}, "vitest"),
        ({"scripts": {"test": "node --test"}, "devDependencies": {"vitest": "^3"}}, "node"),
        ({"scripts": [], "devDependencies": None}, "node"),
        ([], "node"),
    ],
)
def test_the_manifest_decides_the_runner(manifest: object, runner: str, tmp_path: Path) -> None:
    files = {"package.json": json.dumps(manifest), "test/a.test.js": "", "test/b.test.ts": "", "test/b.test.d.ts": ""}
    suite = local_suite(write(tmp_path, files), Tree(tmp_path), Path(sys.executable), tmp_path)
    assert suite.runner == runner
    assert suite.paths == (("test/a.test.js", "test/b.test.ts") if runner == "vitest" else ("test/a.test.js",))


def test_own_packages_are_used_if_they_contain_the_runner(tmp_path: Path) -> None:
    suite = TestSuite(runner="vitest")
    write(tmp_path, {"package.json": "{}", "node_modules/.vite/results.json": "{}"})
    assert installed_packages(suite, tmp_path, tmp_path / "cache") is None
    write(tmp_path, {"node_modules/vitest/package.json": "{}"})
    assert installed_packages(suite, tmp_path, tmp_path / "cache") == tmp_path / "node_modules"


def test_a_report_needs_the_signature_of_its_key(tmp_path: Path) -> None:
    path, text = tmp_path / "report", '{"a": "ä\\r\\n"}\r\n'
    path.write_text(f"{sign(text, b'key')}\n{text}", "utf-8", newline="")
    remove_signature(path, b"key")
    assert path.read_bytes() == text.encode()
    for forged in (text, f"{sign(text, b'other')}\n{text}", f"{sign(text, b'key')}\n{text} ", "", "ä\n"):
        path.write_text(forged, "utf-8", newline="")
        with pytest.raises(NoReportError, match="did not write"):
            remove_signature(path, b"key")
