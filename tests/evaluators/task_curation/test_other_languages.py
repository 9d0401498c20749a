"""A JavaScript repository, scored end to end by Node's own test runner."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.evaluators.sandboxes import Bubblewrap
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.rewards import BuildRun, ComplexityDelta, Impact, Integrity, TestRun, default

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
SANDBOX = "bubblewrap" if not Bubblewrap().problem() else "process"
FILES = {
    "package.json": '{"name": "shop", "type": "module"}\n',
    "src/math.js": "export function add(a, b) {\n  return a - b;\n}\n\nexport function twice(a) {\n  return a * 2;\n}\n",
    "src/cart.js": "import { add } from './math.js';\n\nexport function total(prices) {\n  return prices.reduce((sum, price) => add(sum, price), 0);\n}\n",
    "test/math.test.js": """\
import test, { describe, it } from 'node:test';
import assert from 'node:assert/strict';
import { add, twice } from '../src/math.js';

test('adds', () => assert.equal(add(1, 2), 3));
describe('twice', () => {
  it('doubles', () => assert.equal(twice(2), 4));
  it.skip('is not there yet', () => {});
});
""",
    "test/cart.test.js": """\
import test from 'node:test';
import assert from 'node:assert/strict';
import { total } from '../src/cart.js';

test('sums', () => assert.equal(total([1, 2]), 3));
test('is 0 for nothing', () => assert.equal(total([]), 0));
""",
}
ADDS, SUMS = "test/math.test.js::adds", "test/cart.test.js::sums"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shop")
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture(scope="module")
def task(repo: Path, cache: Path):  # type: ignore[no-untyped-def]
    return local_task(repo, [ADDS, SUMS], sandbox=SANDBOX, cache=cache)


@pytest.fixture(scope="module")
def scorer(cache: Path):  # type: ignore[no-untyped-def]
    with Scorer(sandbox=SANDBOX, cache=cache, workers=1) as made:
        yield made


def edit(path: str, old: str, new: str) -> Patch:
    assert old in FILES[path]
    return Patch.between({path: FILES[path]}, {path: FILES[path].replace(old, new)})


def test_the_baseline_knows_what_passes_what_fails_and_what_is_skipped(task) -> None:  # type: ignore[no-untyped-def]
    assert task.fail_to_pass == (ADDS, SUMS)
    assert set(task.pass_to_pass) == {"test/math.test.js::twice > doubles", "test/cart.test.js::is 0 for nothing"}
    assert "-1 !== 3" in task.failure or "3" in task.failure


def test_a_fix_and_a_breakage_across_modules(task, scorer) -> None:  # type: ignore[no-untyped-def]
    fix = edit("src/math.js", "a - b", "a + b")
    harm = edit("src/math.js", "a - b", "undefined.x")
    fixed, nothing, harmed = scorer.score([(task, fix), (task, Patch("")), (task, harm)], default)
    assert fixed.value == pytest.approx(1.0, abs=0.05)
    assert nothing.value == 0.0
    assert harmed.value < 0.1
    kinds = (TestRun, BuildRun, Impact, ComplexityDelta)
    (evidence,) = scorer.gather([(task, fix)], kinds)
    run, build, impact, complexity = (evidence.records[kind] for kind in kinds)
    assert run.resolved
    assert build == BuildRun(True, 1)
    assert [module.module for module in impact.modules] == ["src/cart.js"]
    assert impact.modules[0].tests == ("test/cart.test.js",)
    assert complexity.files == ("src/math.js",)
    (broken,) = scorer.gather([(task, edit("src/cart.js", "sum, price) => add", "price) => add"))], [TestRun])
    message = broken.records[TestRun].outcomes[SUMS].message
    assert message


def test_what_does_not_compile_is_named(task, scorer) -> None:  # type: ignore[no-untyped-def]
    (found,) = scorer.gather([(task, edit("src/math.js", "return a - b;", "return a -;"))], [BuildRun, TestRun])
    build = found.records[BuildRun]
    assert not build.ok
    assert build.error.startswith("src/math.js:2: SyntaxError")
    assert set(found.records[TestRun].broken) == set(task.pass_to_pass)


def test_tests_come_from_the_pristine_tree(task, scorer) -> None:  # type: ignore[no-untyped-def]
    exploit = edit("test/math.test.js", "add(1, 2), 3", "add(1, 2), -1")
    (found,) = scorer.gather([(task, exploit)], [TestRun])
    assert found.records[TestRun].fixed == ()


def test_leaving_early_passes_nothing(task, scorer) -> None:  # type: ignore[no-untyped-def]
    leave = Patch.between(
        {"src/math.js": FILES["src/math.js"]}, {"src/math.js": "process.exit(0);\n" + FILES["src/math.js"]}
    )
    (found,) = scorer.gather([(task, leave)], [TestRun])
    assert found.records[TestRun].fixed == ()
    assert set(found.records[TestRun].broken) == set(task.pass_to_pass)


def test_a_runner_that_is_killed_is_not_believed(task, scorer) -> None:  # type: ignore[no-untyped-def]
    forge = (
        "import { readFileSync, writeFileSync } from 'node:fs';\n"
        "const said = readFileSync(`/proc/${process.ppid}/cmdline`, 'utf8').split('\\0');\n"
        "const to = (said.find((each) => each.includes('destination=')) ?? '').split('=')[1];\n"
        'if (to) {\n  writeFileSync(to, \'<testsuites><testcase name="adds"/><testcase name="sums"/></testsuites>\');\n'
        "  process.kill(process.ppid, 'SIGKILL');\n}\n"
    )
    exploit = Patch.between({"src/math.js": FILES["src/math.js"]}, {"src/math.js": forge + FILES["src/math.js"]})
    (found,) = scorer.gather([(task, exploit)], [TestRun, Integrity])
    assert found.records[TestRun].fixed == ()
    assert "reach for the runner" in {sign.kind for sign in found.records[Integrity].signs if sign.conclusive}


def test_a_report_that_the_code_under_test_writes_is_void(task, scorer) -> None:  # type: ignore[no-untyped-def]
    forge = """\
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
const said = readFileSync(`/proc/${process.ppid}/cmdline`, 'utf8').split('\\0');
for (const each of said.filter((each) => each.includes('destination=/'))) {
  const to = each.split('=')[1];
  rmSync(to);
  const failed = '<testcase name="another"><failure/></testcase>';  // the runner's exit status says that one did
  writeFileSync(to, `<testsuites><testcase name="adds"/><testcase name="sums"/>${failed}</testsuites>`);
}
"""
    exploit = Patch.between({"src/math.js": FILES["src/math.js"]}, {"src/math.js": forge + FILES["src/math.js"]})
    (found,) = scorer.gather([(task, exploit)], [TestRun])
    assert found.records[TestRun].fixed == ()
    assert set(found.records[TestRun].broken) == set(task.pass_to_pass)


def test_a_test_file_that_fails_as_a_whole_says_why_its_tests_are_missing(task, scorer) -> None:  # type: ignore[no-untyped-def]
    (found,) = scorer.gather([(task, edit("src/math.js", "function twice", "function thrice"))], [TestRun, Impact])
    message = found.records[TestRun].outcomes["test/math.test.js::twice > doubles"].message
    assert "does not provide an export named 'twice'" in message
    assert found.records[Impact].dangling_tests == (("test/math.test.js", "src/math.js::twice"),)


def test_packages_beside_the_tree_are_found(repo: Path, cache: Path, tmp_path: Path) -> None:
    own = tmp_path / "shop"
    shutil.copytree(repo, own)
    package = own / "node_modules" / "plus"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"name": "plus", "main": "index.js"}')
    (package / "index.js").write_text("exports.plus = (a, b) => a + b;\n")
    (own / "src/math.js").write_text(
        "import { plus } from 'plus';\n" + FILES["src/math.js"].replace("a - b", "plus(a, b)")
    )
    found = local_task(own, sandbox=SANDBOX, cache=cache)
    assert {ADDS, SUMS} <= set(found.pass_to_pass)


def test_a_repository_without_tests_is_told(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    with pytest.raises(UserError, match="no test file"):
        local_task(tmp_path, sandbox=SANDBOX, cache=cache)


# ---------------------------------------------------------------- Rust

CRATE = {
    "Cargo.toml": '[package]\nname = "shop"\nversion = "0.1.0"\nedition = "2021"\n',
    "src/lib.rs": "pub mod math;\n\npub fn total(prices: &[i32]) -> i32 {\n    prices.iter().fold(0, |sum, price| math::add(sum, *price))\n}\n",
    "src/math.rs": "pub fn add(a: i32, b: i32) -> i32 {\n    a - b\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn adds_nothing() {\n        assert_eq!(super::add(2, 0), 2);\n    }\n}\n",
    "tests/shop.rs": "#[test]\nfn sums() {\n    assert_eq!(shop::total(&[1, 2]), 3);\n}\n\n#[test]\nfn nothing_is_0() {\n    assert_eq!(shop::total(&[]), 0);\n}\n",
}


def cargo_works() -> bool:
    if shutil.which("cargo") is None:
        return False
    return subprocess.run(["cargo", "--version"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not cargo_works(), reason="needs cargo")
def test_a_rust_crate_is_scored_end_to_end(tmp_path: Path, cache: Path) -> None:
    for path, text in CRATE.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    task = local_task(tmp_path, ["tests/shop.rs::sums"], sandbox=SANDBOX, cache=cache, runs=2)
    assert task.fail_to_pass == ("tests/shop.rs::sums",)
    assert set(task.pass_to_pass) == {"src/lib.rs::math::tests::adds_nothing", "tests/shop.rs::nothing_is_0"}
    assert "left: " in task.failure

    def changed(old: str, new: str) -> Patch:
        return Patch.between(
            {"src/math.rs": CRATE["src/math.rs"]}, {"src/math.rs": CRATE["src/math.rs"].replace(old, new)}
        )

    forged = {
        ".cargo/config.toml": '[target.x86_64-unknown-linux-gnu]\nrunner = ["sh", "run.sh"]\n',
        "run.sh": 'for last; do :; done\nprintf "ok sums\\nok nothing_is_0\\n" > "${last#--logfile=}"\n',
    }
    gutted = changed("super::add(2, 0), 2", "1, 1").text + "".join(
        Patch.between({"src/lib.rs": CRATE["src/lib.rs"]}, {"src/lib.rs": CRATE["src/lib.rs"] + "\n// x\n"}).text
    )
    harmful = Patch.between(
        {"src/math.rs": CRATE["src/math.rs"]},
        {"src/math.rs": CRATE["src/math.rs"].replace("a - b", "a + b + 1").replace("(2, 0), 2", "(2, 0), 3")},
    )
    with Scorer(sandbox=SANDBOX, cache=cache, workers=1) as scorer:
        jobs = [(task, changed("a - b", "a + b")), (task, changed("a - b", "a - c"))]
        fixed, broken = scorer.gather(jobs, [TestRun, BuildRun, Impact])
        exploits = scorer.gather(
            [(task, patch) for patch in (Patch.between({}, forged), Patch(gutted), harmful)], [TestRun]
        )
    assert [found.records[TestRun].fixed for found in exploits] == [(), (), ()]
    assert exploits[2].records[TestRun].broken, "the tests in a file are the pristine tree's"
    assert fixed.records[TestRun].resolved
    assert fixed.records[BuildRun] == BuildRun(True, 1)
    (module,) = fixed.records[Impact].modules
    assert (module.module, module.tests) == ("src/lib.rs", ("tests/shop.rs",))
    assert set(broken.records[TestRun].broken) == set(task.pass_to_pass)
    assert broken.records[BuildRun].error.startswith("src/math.rs:2: error")
