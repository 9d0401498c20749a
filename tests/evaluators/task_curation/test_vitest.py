"""A TypeScript repository with Vitest, whose packages are installed from its lock: scored end to end, and made into tasks."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import Bubblewrap
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards import ComplexityDelta, Impact, TestRun, default

SANDBOX = "bubblewrap" if not Bubblewrap().problem() else "process"
FILES = {
    "package.json": json.dumps(
        {
            "name": "shop",
            "private": True,
            "type": "module",
            "scripts": {"test": "vitest run"},
            "devDependencies": {"vitest": "^2.1.9"},
        }
    ),
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


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root, cache = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("cache")
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    if shutil.which("npm") is None:
        pytest.skip("needs npm")
    try:
        subprocess.run(["npm", "ping", "--fetch-retries=0"], check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError):
        pytest.skip("needs npm's registry")
    return local_task(root, [SUMS], sandbox=SANDBOX, cache=cache, runs=1)


@pytest.fixture(scope="module")
def scorer(task: Task, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with Scorer(sandbox=SANDBOX, cache=tmp_path_factory.mktemp("cache"), workers=1) as made:
        yield made


def edit(path: str, old: str, new: str) -> Patch:
    return Patch.between({path: FILES[path]}, {path: FILES[path].replace(old, new)})


def test_a_fix_and_what_breaks_beside_it(task: Task, scorer: Scorer) -> None:
    assert (task.fail_to_pass, task.pass_to_pass) == ((SUMS,), (NOTHING,))
    fix, harm = edit("src/math.ts", "a - b", "a + b"), edit("src/math.ts", "a - b;", "a -;")
    fixed, nothing = scorer.score([(task, fix), (task, Patch(""))], default)
    assert fixed.value == pytest.approx(1.0, abs=0.05)
    assert nothing.value == 0.0
    good, broken = scorer.gather([(task, fix), (task, harm)], [TestRun, Impact, ComplexityDelta])
    assert good.records[TestRun].resolved
    assert [module.module for module in good.records[Impact].modules] == ["src/cart.ts"]
    assert broken.records[TestRun].broken == (NOTHING,)
    assert broken.records[TestRun].outcomes[NOTHING].message


def test_reports_of_edited_tests_and_killed_runners_are_not_believed(task: Task, scorer: Scorer) -> None:
    leaving = Patch.between(
        {"src/math.ts": FILES["src/math.ts"]},
        {"src/math.ts": "process.kill(process.ppid, 9);\n" + FILES["src/math.ts"]},
    )
    exploits = [leaving, edit("test/cart.test.ts", "toBe(3)", "toBe(-3)"), edit("package.json", "vitest run", "true")]
    runs = [each.records[TestRun] for each in scorer.gather([(task, patch) for patch in exploits], [TestRun])]
    assert [run.fixed for run in runs] == [(), (), ()]
