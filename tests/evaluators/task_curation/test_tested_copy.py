"""Which copy of a repository's code is tested: its own, whatever is installed or was imported before."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.execution.records import SourcesRecord, TestRecord
from regrade.evaluators.execution.untestable import UNTESTABLE
from regrade.evaluators.execution.worker import Request, Worker
from regrade.evaluators.sandboxes import choose
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.task_curation.layout import python_path
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.evaluators.task_curation.tested_code import untested_code
from regrade.policy_training.environments.attempts import judge
from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD
from regrade.rewards.builtin import default
from regrade.rewards.evidence import End, TestRun

VALUE = "def value():\n    return 1\n"
FOR_HYPOTHESIS = """

class SortedList(list):
    def __init__(self, items=(), key=None):
        super().__init__(items)


SortedSet = SortedList
"""
"""The plugin of hypothesis imports these from the tree's sortedcontainers at the end of a session."""
PROJECT = "[project]\nname = '{}'\nversion = '1'\n"


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def runs(scorer: Scorer, repo: Path, tmp_path: Path, *patches: Patch, ids: tuple[str, ...] = ()) -> list[TestRun | str]:
    """The evidence of each patch, or why it is unscored."""
    task = local_task(repo, ids, runs=1, cache=tmp_path / "cache", tell=lambda _: None)
    evidence = scorer.gather([(task, patch) for patch in patches], [TestRun])
    return [item.records.get(TestRun) or item.infrastructure[TestRun] for item in evidence]


@pytest.mark.parametrize("folder", ["", "src/", "lib/", "code/python/"])
def test_packages_that_the_runner_or_a_plugin_imports_are_tested_in_the_tree(scorer, folder, tmp_path):
    names = ("iniconfig", "packaging", "pluggy", "sortedcontainers")
    packages = {f"{folder}{name}/__init__.py": VALUE + FOR_HYPOTHESIS for name in names}
    tests = {
        f"tests/test_{name}.py": f"from {name} import value\n\ndef test_value():\n    assert value() == 1\n"
        for name in names
    }
    projects = {"pyproject.toml": PROJECT.format(names[0]), "PKG-INFO": "".join(f"Name: {name}\n" for name in names)}
    repo = write(tmp_path / "repo", {**packages, **tests, **projects})
    patches = [
        Patch.between(packages, {path: text.replace("return 1", line) for path, text in packages.items()})
        for line in ("return 2 - 1", "return 2")
    ]
    good, bad = runs(scorer, repo, tmp_path, *patches)
    assert (good.end, good.broken) == (End.COMPLETED, ())
    assert (bad.end, bad.broken) == (End.COMPLETED, tuple(f"{path}::test_value" for path in tests))


def test_a_patch_that_removes_the_module_is_not_judged_by_an_installed_copy(scorer, tmp_path):
    test = "import sortedcontainers\n\ndef test_it():\n    assert sortedcontainers.SortedList([2, 1])[0] == 1\n"
    package = "from sortedcontainers.lists import SortedList, SortedSet\n"
    lists = FOR_HYPOTHESIS.lstrip()
    names = {"src/sortedcontainers/__init__.py": package, "src/sortedcontainers/lists.py": lists}
    repo = write(tmp_path / "repo", {**names, "tests/test_it.py": test})
    removal = "".join(
        f"--- a/{path}\n+++ /dev/null\n@@ -1,{text.count(chr(10))} +0,0 @@\n"
        + "".join(f"-{line}\n" for line in text.splitlines())
        for path, text in names.items()
    )
    (run,) = runs(scorer, repo, tmp_path, Patch(removal), ids=("tests/test_it.py::test_it",))
    assert (run.end, run.resolved) == (End.CRASHED, False)
    assert "sortedcontainers was imported from /" in run.detail
    assert "not from the repository" in run.detail


def test_the_runner_of_the_tests_cannot_be_the_code_under_test(scorer, tmp_path):
    test = "import pytest\n\ndef test_it():\n    assert pytest.__version__ == '0'\n\ndef test_other():\n    pass\n"
    repo = write(tmp_path / "repo", {"src/pytest/__init__.py": "__version__ = '0'\n", "tests/test_it.py": test})
    with pytest.raises(
        UserError,
        match=r"pytest was imported from /.*, not from the repository.*patches of pytest itself can.t be scored.*`python_path=FOLDER`",
    ):
        runs(scorer, repo, tmp_path)


def test_a_package_of_another_project_is_not_shadowed_by_a_vendored_copy(tmp_path):
    test = f"import shop\nimport sortedcontainers\n\ndef test_it():\n    assert shop and sortedcontainers.__version__ == '{version('sortedcontainers')}'\n"
    files = {"vendored/sortedcontainers/__init__.py": "__version__ = '0'\n", "pyproject.toml": PROJECT.format("shop")}
    repo = write(tmp_path / "repo", {**files, "shop.py": VALUE, "tests/test_it.py": test})
    assert python_path(repo, Tree(repo), Path(sys.executable)) == (".",)
    assert local_task(repo, runs=1, cache=tmp_path / "cache").pass_to_pass == ("tests/test_it.py::test_it",)


def test_the_folder_of_an_editable_installation_is_found(tmp_path):
    files = {
        "one/shop/__init__.py": VALUE,
        "two/shop/__init__.py": VALUE,
        "tests/test_it.py": "from shop import value\n",
    }
    repo = write(tmp_path / "repo", files)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(repo / ".venv")], check=True)
    python = repo / ".venv" / "bin" / "python"
    assert python_path(repo, Tree(repo), python) == (".",)  # which of the two is unclear
    (packages,) = (repo / ".venv" / "lib").glob("python*/site-packages")
    (packages / "__editable__.shop-1.pth").write_text(f"{repo / 'two'}\n")
    assert python_path(repo, Tree(repo), python) == ("two", ".")


FAST = """\
#include <Python.h>
#include "number.h"
static PyObject *value(PyObject *self, PyObject *arg) { return PyLong_FromLong(NUMBER); }
static PyMethodDef m[] = {{"value", value, METH_NOARGS, ""}, {0}};
static struct PyModuleDef d = {PyModuleDef_HEAD_INIT, "_fast", "", -1, m};
PyMODINIT_FUNC PyInit__fast(void) { return PyModule_Create(&d); }
"""
EXTENSION = {
    "setup.py": "from setuptools import Extension, setup\n"
    "setup(name='shop', version='1', packages=['shop'], ext_modules=[Extension('shop._fast', ['shop/_fast.c'])])\n",
    "shop/__init__.py": "",
    "shop/_fast.c": FAST,
    "shop/number.h": "#define NUMBER 2\n",
    "shop/unused.h": "#define NUMBER 3\n",
    "tests/test_it.py": "from shop._fast import value\n\ndef test_value():\n    assert value() == 1\n\ndef test_type():\n"
    "    assert type(value()) is int\n",
}


def number(text: str, path: str = "shop/number.h", old: str = "#define NUMBER 2") -> Patch:
    return Patch(f"--- a/{path}\n+++ b/{path}\n@@ -1,1 +1,1 @@\n-{old}\n+{text}\n")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("no compiler: install gcc")
    repo = write(tmp_path_factory.mktemp("built") / "repo", EXTENSION)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=repo, check=True, capture_output=True)
    shutil.rmtree(repo / "build")
    return repo


@pytest.fixture
def extension(built, tmp_path) -> Path:
    """A copy of the test's own."""
    return shutil.copytree(built, tmp_path / "repo")


@pytest.mark.slow
def test_an_extension_is_built_again_from_the_files_that_its_compiler_reads(scorer, extension, tmp_path):
    patches = (
        number("#define NUMBER 1"),
        number('#define NUMBER "1"'),
        number("#define NUMBER 4", "shop/unused.h", "#define NUMBER 3"),
        number("#error no"),
    )
    fix, broken, unrelated, uncompiled = runs(
        scorer, extension, tmp_path, *patches, ids=("tests/test_it.py::test_value",)
    )
    assert fix.resolved
    assert broken.end is End.CRASHED or not broken.resolved
    assert (unrelated.end, unrelated.broken, unrelated.resolved) == (End.COMPLETED, (), False)
    assert (uncompiled.end, uncompiled.resolved) == (End.CRASHED, False)
    assert "error" in uncompiled.detail


@pytest.mark.slow
def test_an_extension_that_cannot_be_built_leaves_the_patch_unscored_and_a_policy_gains_nothing_by_it(
    scorer, extension, tmp_path
):
    """Unscored for who asks for a verdict; in training and evaluation the worst that an attempt can be."""
    (extension / "setup.py").write_text("raise SystemExit('error: no such tool')\n")
    ids = ("tests/test_it.py::test_value",)
    task = local_task(extension, ids, runs=1, cache=tmp_path / "cache", tell=lambda _: None)
    names = {"policy": "p", "temperature": 0.0, "seed": 0}
    patches = (number("#define NUMBER 1"), Patch("--- /dev/null\n+++ b/README\n@@ -0,0 +1,1 @@\n+Hello\n"))
    rollouts = [Rollout(task_id=task.id, sample=sample, patch=patch, **names) for sample, patch in enumerate(patches)]
    untestable, unrelated = scorer.gather([(task, patch) for patch in patches], [TestRun])
    assert scorer.score([(task, patches[0])], default)[0].value is None
    rows = evaluate(rollouts, [task], scorer, default, tmp_path / "rows.jsonl")
    attempts = judge(rollouts, {task.id: task}, scorer, DEFAULT_TRAINING_REWARD)
    reason = untestable.infrastructure[TestRun]
    assert reason.startswith(f"{UNTESTABLE}shop/number.h is compiled into shop/_fast.")
    assert "which could not be built again: error: no such tool" in reason
    assert (unrelated.records[TestRun].end, unrelated.records[TestRun].broken) == (End.COMPLETED, ())
    assert list(rows["status"]) == ["scored", "scored"]
    assert list(rows["reward"]) == [0.0, 0.0]
    assert list(rows["broke"]) == [1, 0]
    assert (rows.loc[0, "fix"], rows.loc[0, "clean_fix"], rows.loc[0, "end"]) == (0, 0, "crashed")
    assert "which could not be built again" in rows.loc[0, "cause"]
    lowest = DEFAULT_TRAINING_REWARD.payment(None, None, compiles=False).value
    assert [attempt.reward for attempt in attempts] == [lowest, 0.0]


@pytest.mark.slow
def test_a_python_file_behind_a_compiled_one_of_its_name_leaves_the_patch_unscored(scorer, extension, tmp_path):
    (extension / "shop" / "_fast.py").write_text("def value():\n    return 1\n")
    change = Patch.between(
        {"shop/_fast.py": "def value():\n    return 1\n"}, {"shop/_fast.py": "def value():\n    return 3\n"}
    )
    (reason,) = runs(scorer, extension, tmp_path, change, ids=("tests/test_it.py::test_value",))
    assert reason.startswith(f"{UNTESTABLE}shop/_fast.py is compiled into shop/_fast.")
    assert "the build of the project does not make it" in reason


@pytest.fixture(scope="module")
def worker(tmp_path_factory) -> Iterator[Worker]:
    scratch = tmp_path_factory.mktemp("scratch")
    scratch.chmod(0o755)
    with Worker(choose(), Path(sys.executable), scratch, limits=Limits(wall_seconds=60.0)) as started:
        yield started


UNTOUCHED = {
    "tests/__init__.py": "",
    "tests/helpers.py": "def one():\n    return 1\n",
    "data.csv": "1",
    "shop.py": VALUE,
}
"""Beside the tests, and `tests/test_more.py`, which touches nothing of it."""
MORE = {"tests/test_more.py": "def test_more():\n    pass\n"}
TOUCHES_NOTHING = (
    "import json\n\ndef test_it():\n    assert json.loads('1') == 1\n",
    "from tests.helpers import one\n\ndef test_it():\n    assert one() == 1\n",
)


@pytest.mark.parametrize(
    ("test", "touches"),
    [
        *((test, False) for test in TOUCHES_NOTHING),
        ("import shop\n\ndef test_it():\n    pass\n", True),
        ("from pathlib import Path\n\ndef test_it():\n    assert Path('data.csv').read_text() == '1'\n", True),
        ("from pathlib import Path\n\ndef test_it():\n    assert 'value' in Path('shop.py').read_text()\n", True),
        ("import os\n\ndef test_it():\n    assert 'shop.py' in os.listdir('.')\n", True),
        ("import runpy\n\ndef test_it():\n    runpy.run_path('shop.py')\n", True),
        (
            "import subprocess, sys\n\ndef test_it():\n    subprocess.run([sys.executable, 'shop.py'], check=True)\n",
            True,
        ),
        ("import lost\n\ndef test_lost():\n    pass\n", True),
    ],
)
def test_a_run_shows_whether_tests_touch_anything_of_the_tree(test, touches, worker, tmp_path):
    tree = Tree(write(tmp_path / "repo", {**UNTOUCHED, **MORE, "tests/test_it.py": test}))
    suite = TestSuite()
    reply = worker.run(tree, Request(suite=suite, limits=Limits(wall_seconds=60.0), sources=True))
    assert "tests/test_more.py::test_more" in {record.id for record in reply.of(TestRecord)}
    (record,) = reply.of(SourcesRecord)
    assert untested_code(tree, suite, record.sources, reply) == ("" if touches else "shop.py")


@pytest.mark.parametrize("test", TOUCHES_NOTHING)
def test_tests_that_touch_nothing_of_the_tree_are_an_error(test, tmp_path):
    repo = write(tmp_path / "repo", {**UNTOUCHED, **MORE, "tests/test_it.py": test})
    with pytest.raises(UserError, match=r"none of the repository's code \(nothing of shop\.py.*`python_path=FOLDER`"):
        local_task(repo, runs=1, cache=tmp_path / "cache", tell=lambda _: None)


def test_tests_that_may_lack_code_of_a_patch_are_no_error(tmp_path):
    tests = {"tests/test_it.py": "import lost\n\ndef test_lost():\n    pass\n", **MORE}
    repo = write(tmp_path / "repo", {**UNTOUCHED, **tests})
    assert local_task(repo, runs=1, cache=tmp_path / "cache", tell=lambda _: None).pass_to_pass


def test_tests_beside_no_code_touch_nothing_and_are_no_error(tmp_path):
    repo = write(tmp_path / "repo", {"tests/test_it.py": "def test_it():\n    pass\n", "README": "Hello\n"})
    assert local_task(repo, runs=1, cache=tmp_path / "cache").pass_to_pass == ("tests/test_it.py::test_it",)


@pytest.mark.slow
@pytest.mark.parametrize("further", [False, True])
def test_a_package_that_is_compiled_only_where_it_is_installed(further, extension, tmp_path):
    (built,) = (extension / "shop").glob("*.so")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(extension / ".venv")], check=True)
    (packages,) = (extension / ".venv" / "lib").glob("python*/site-packages")
    for name in ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments"):
        shutil.copytree(Path(pytest.__file__).parents[1] / name, packages / name)
    shutil.copy(Path(pytest.__file__).parents[1] / "py.py", packages)
    shutil.copytree(extension / "shop", packages / "shop")
    built.unlink()
    told: list[str] = []
    if further:
        (extension / "tests/test_more.py").write_text("import shop\n\ndef test_it():\n    pass\n")
        local_task(extension, runs=1, cache=tmp_path / "cache", tell=told.append)
    else:
        with pytest.raises(UserError) as raised:
            local_task(extension, runs=1, cache=tmp_path / "cache", tell=told.append)
        told.append(str(raised.value))
    assert any(f"shop._fast is compiled only in the installed copy ({packages}/shop/_fast." in text for text in told)
    assert any("setup.py build_ext --inplace" in text for text in told)
