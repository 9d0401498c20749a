"""A Go module, scored end to end by `go test -json`, and made into tasks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.sandboxes import Bubblewrap
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.built_repository import built_repository
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.evaluators.task_curation.task_sources import from_mutation
from regrade.rewards import BuildRun, ComplexityDelta, Impact, TestRun, default

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("go") is None, reason="needs go")]
SANDBOX = "bubblewrap" if not Bubblewrap().problem() else "process"
FILES = {
    "go.mod": "module example.org/shop\n\ngo 1.18\n",
    "math/math.go": "package math\n\nfunc Add(a, b int) int {\n\treturn a - b\n}\n\nfunc First(items []int) int {\n\treturn items[0]\n}\n",
    "math/math_test.go": """\
package math

import "testing"

func TestAdd(t *testing.T) {
	for name, each := range map[string][3]int{"two": {1, 1, 2}, "zero": {3, 0, 3}} {
		t.Run(name, func(t *testing.T) {
			if sum := Add(each[0], each[1]); sum != each[2] {
				t.Errorf("got %d, want %d", sum, each[2])
			}
		})
	}
}

func TestFirst(t *testing.T) {
	if First([]int{4, 5}) != 4 {
		t.Fatal("not the first")
	}
}

func TestLater(t *testing.T) { t.Skip("not there yet") }
""",
    "cart/cart.go": 'package cart\n\nimport "example.org/shop/math"\n\nfunc Total(prices []int) int {\n\tsum := 0\n\tfor _, price := range prices {\n\t\tsum = math.Add(sum, price)\n\t}\n\treturn sum\n}\n',
    "cart/cart_test.go": """\
package cart_test

import (
	"fmt"
	"testing"

	"example.org/shop/cart"
)

func TestNothing(t *testing.T) {
	if cart.Total(nil) != 0 {
		t.Fatal("not 0")
	}
}

func ExampleTotal() {
	fmt.Println(cart.Total([]int{1, 2}))
	// Output: 3
}
""",
}
ADDS, SUMS = "math/math_test.go::TestAdd", "cart/cart_test.go::ExampleTotal"
GUARDED = {"math/math_test.go::TestAdd/zero", "math/math_test.go::TestFirst", "cart/cart_test.go::TestNothing"}


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    with Scorer(sandbox=SANDBOX, cache=tmp_path_factory.mktemp("cache"), workers=1) as made:
        yield made


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    root = tmp_path_factory.mktemp("shop")
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return local_task(root, [ADDS, SUMS], sandbox=SANDBOX, cache=tmp_path_factory.mktemp("cache"), runs=1)


def edit(path: str, old: str, new: str) -> Patch:
    assert old in FILES[path]
    return Patch.between({path: FILES[path]}, {path: FILES[path].replace(old, new)})


def test_a_fix_and_a_breakage_across_packages(task: Task, scorer: Scorer) -> None:
    assert set(task.pass_to_pass) == GUARDED
    assert task.unnamed == ("math/math_test.go::TestAdd/two",)
    fix = edit("math/math.go", "a - b", "a + b")
    (evidence,) = scorer.gather([(task, fix)], [TestRun, BuildRun, Impact, ComplexityDelta])
    records = evidence.records
    assert records[TestRun].resolved
    assert records[BuildRun] == BuildRun(True, 1)
    assert [module.module for module in records[Impact].modules] == ["cart/cart.go"]
    fixed, nothing = scorer.score([(task, fix), (task, Patch(""))], default)
    assert fixed.value == pytest.approx(1.0, abs=0.05)
    assert nothing.value == 0.0
    (unpatched,) = scorer.gather([(task, Patch(""))], [TestRun])
    assert unpatched.records[TestRun].outcomes[SUMS].message.split() == ["got:", "-3", "want:", "3"]


def test_what_does_not_compile_is_named(task: Task, scorer: Scorer) -> None:
    (found,) = scorer.gather([(task, edit("math/math.go", "a - b", "a - c"))], [BuildRun, TestRun])
    assert found.records[BuildRun].error.startswith("math/math.go:4: undefined: c")
    run = found.records[TestRun]
    assert set(run.broken) == GUARDED
    assert run.outcomes[ADDS].message.startswith("math/math.go:4: undefined: c")


def test_printed_results_and_edited_tests_are_not_believed(task: Task, scorer: Scorer) -> None:
    """A package that prints what `go test` prints, before its tests start or in one that then panics."""
    passes = "".join(f"=== RUN   {name}\\n--- PASS: {name} (0.00s)\\n" for name in ("TestAdd", "ExampleTotal"))
    printed = f'\tfmt.Print("{passes}PASS\\n")\n'
    leaving = FILES["math/math.go"].replace(
        "math\n", f'math\n\nimport (\n\t"fmt"\n\t"os"\n)\n\nfunc init() {{\n{printed}\tos.Exit(0)\n}}\n', 1
    )
    panicking = (
        FILES["math/math.go"]
        .replace("math\n", 'math\n\nimport "fmt"\n', 1)
        .replace("\treturn items[0]", f"{printed}\tpanic(items)")
    )
    exploits = [
        Patch.between({"math/math.go": FILES["math/math.go"]}, {"math/math.go": text}) for text in (leaving, panicking)
    ]
    exploits.append(edit("math/math_test.go", "!= each[2]", "== 100"))
    runs = [each.records[TestRun] for each in scorer.gather([(task, patch) for patch in exploits], [TestRun])]
    assert [run.fixed for run in runs] == [(), (), ()]
    assert set(runs[0].broken) == GUARDED
    assert "math/math_test.go::TestFirst" in runs[1].broken


def test_planted_bugs_are_tasks(scorer: Scorer, tmp_path: Path) -> None:
    files = {**FILES, "math/math.go": FILES["math/math.go"].replace("a - b", "a + b")}
    for path, text in files.items():
        (tmp_path / "shop" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "shop" / path).write_text(text)
    repository = built_repository(tmp_path / "shop", scorer, runs=1, limit=1, cache=tmp_path / "cache")
    (task,) = from_mutation(repository)
    assert task.target is not None
    assert task.target.file.endswith(".go")
    assert task.reference is not None
    assert task.fail_to_pass[0] in task.instruction
    tried = repository.yields.total()
    assert (tried.valid, tried.tried >= 1) == (1, True)
    assert len({*task.fail_to_pass, *task.pass_to_pass}) == 6
