"""Which files decide the tests: shown by a run, whatever their names."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, TestSuite, Tree
from regrade.evaluators.execution.records import TestSources
from regrade.evaluators.execution.workspaces import prepare
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.docstrings import edited_examples, with_pristine_docstrings
from regrade.evaluators.task_curation.checkup import check_up
from regrade.evaluators.task_curation.classified_files import classify_files
from regrade.evaluators.task_curation.findings import ExploitOutcome
from regrade.evaluators.task_curation.local_repository import local_task
from regrade.evaluators.task_curation.validation import editable_expectations
from regrade.evaluators.verification.counterfactuals import PatchedTree, exploits
from regrade.rewards.builtin import default
from regrade.rewards.evidence import End, Integrity, TestRun

BUGGY = "def count(goods):\n    return len(goods) + 1\n"
FIXED = "def count(goods):\n    return len(goods)\n"
TEST = "from shop.cart import count\n\n\ndef test_count():\n    assert count([1, 2]) == 2\n"
OTHER = "from shop import names\n\n\ndef test_names():\n    assert names.NAMES == ['a']\n"
NAMES = "NAMES = ['a']\n"


def written(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text))
    return folder


def made(folder: Path, files: dict[str, str], *ids: str) -> Task:
    everything = {"shop/__init__.py": "", "shop/cart.py": BUGGY, "shop/names.py": NAMES, "tests/test_names.py": OTHER}
    root = written(folder / "repo", {**everything, **files})
    return local_task(root, ids, cache=folder / "cache", runs=1, tell=lambda _: None)


def fix() -> Patch:
    return Patch.between({"shop/cart.py": BUGGY}, {"shop/cart.py": FIXED})


def values(scorer: Scorer, task: Task, *patches: Patch) -> list[float | None]:
    return scores(scorer, [(task, patch) for patch in patches])


def scores(scorer: Scorer, jobs: list[tuple[Task, Patch]]) -> list[float | None]:
    return [breakdown.value for breakdown in scorer.score(jobs, default)]


def alone(task: Task, id_: str) -> Task:
    """The task with one of its FAIL_TO_PASS tests: several cases in one repository, each judged by its own test."""
    assert id_ in task.fail_to_pass
    return replace(task, id=f"{task.id}:{id_}", fail_to_pass=(id_,))


def edits(files: dict[str, str], old: str, new: str) -> dict[str, str]:
    """The files, all edited."""
    assert all(old in text for text in files.values())
    return {path: text.replace(old, new) for path, text in files.items()}


INI = "[pytest]\npython_files = tests.py check_*.py *_tests.py *_spec.py t/*.py test_*.py\n"


@pytest.mark.parametrize("has_configuration", [False, True])
def test_a_new_configuration_file_of_a_patch_has_no_effect(scorer, tmp_path, has_configuration):
    files = {"tests/test_cart.py": TEST}
    if has_configuration:
        files["setup.cfg"] = "[tool:pytest]\naddopts = -ra\n"
    task = made(tmp_path, files, "tests/test_cart.py::test_count")
    assert task.suite.configuration == ("setup.cfg" if has_configuration else "")
    plugin = "import shop.cart\nshop.cart.count = len\n"
    cheats = {}
    for folder in ("", "tests/"):
        for name in ("pytest.toml", "pytest.ini", *(() if folder else (".pytest.toml", ".pytest.ini"))):
            option = "'-p shop.plugin'" if name.endswith("toml") else "-p shop.plugin"
            table = f"[pytest]\naddopts = {option}\n"
            cheats[f"{folder}{name}"] = Patch.between({}, {f"{folder}{name}": table, "shop/plugin.py": plugin})
    found = dict(zip(cheats, values(scorer, task, *cheats.values()), strict=True))
    assert found == dict.fromkeys(cheats, 0.0)
    # The name alone also keeps it out of the tree.
    assert [path for path, cheat in cheats.items() if path not in prepare(task, cheat).ignored] == []


COMPARES = """

def test_{name}():
    assert str(count([1, 2])) == Path({path!r}).read_text().strip()
"""


def test_tests_and_their_expected_output_are_theirs_whatever_their_names_and_wherever_they_lie(scorer, tmp_path):
    """Their patch has a right expectation for wrong code in every file, so any file that it may edit fixes a test."""
    expected = {
        "spec/golden/count.md": "spec/cart_spec.py",  # a document among tests
        "spec/golden/other.py": "spec/cart_spec.py",  # so is text with the name of source code
        "shop/expected.txt": "shop/tests.py",  # tests and their data between the modules
        "shop/golden/total.txt": "shop/tests.py",
        "cases/number.txt": "checks/check_cart.py",
        "wanted.txt": "test_flat.py",
    }
    tests = dict.fromkeys(
        (*expected.values(), "shop/cart_tests.py", "t/cart.py"), f"from pathlib import Path\n\n{TEST}"
    )
    for number, (path, test) in enumerate(expected.items()):
        tests[test] += COMPARES.format(name=f"expected_{number}", path=path)
    tests["checks/test_cart.py"] = (
        "import json\nfrom pathlib import Path\n\nfrom shop.cart import count\n\n\ndef test_count():\n"
        "    cases = json.loads((Path(__file__).parents[1] / 'cases' / 'count.json').read_text())\n"
        "    assert [count(goods) for goods, _ in cases] == [expected for _, expected in cases]\n"
    )
    data = {**dict.fromkeys(expected, "2\n"), "cases/count.json": "[[[1, 2], 2]]"}
    task = made(tmp_path, {**tests, **data, "pytest.ini": INI}, *tests)
    assert len(task.fail_to_pass) == len(tests) + len(expected)
    assert set(tests) <= set(task.suite.test_files)
    assert [path for path in data if not task.suite.protects(path)] == []
    assert not task.suite.protects("shop/cart.py")
    edited = tests | edits({path: text for path, text in tests.items() if "== 2" in text}, "== 2", "== 3")
    edited |= {path: text.replace("2\n", "3\n").replace("2]]", "3]]") for path, text in data.items()}
    cheat = Patch.between({**tests, **data}, edited)
    cheated, fixed = scorer.score([(task, cheat), (task, fix())], default)
    (evidence,) = scorer.gather([(task, cheat)], [TestRun])
    assert (evidence.records[TestRun].end, evidence.records[TestRun].fixed) == (End.COMPLETED, ())
    assert cheated.value == 0.0
    assert fixed.value is not None
    assert fixed.value > 0.99
    unchanged = {"checks/test_cart.py"}
    assert prepare(task, cheat).ignored == tuple(sorted({*tests, *data} - unchanged))


CHECKS_DATA = """

def test_data_{number}():
    assert 'b' in Path({path!r}).read_text()
"""


def test_data_of_the_product_and_code_in_a_folder_called_test_may_be_edited(scorer, tmp_path):
    checked = {
        "shop/names.json": "shop/tests.py",  # the code loads it elsewhere, by its name,
        "shop/de.lang": "shop/tests.py",  # by its suffix,
        "shop/de.csv": "shop/tests.py",  # or only its users do
        "shop/prices.json": "tests/test_data.py",
        "docs/names.md": "tests/test_data.py",
        "README.md": "test_flat.py",
    }
    tests = dict.fromkeys(checked.values(), "from pathlib import Path\n\nimport shop.load\n")
    for number, (path, test) in enumerate(checked.items()):
        tests[test] += CHECKS_DATA.format(number=number, path=path)
    tests["tests/test_version.py"] = (
        "from pathlib import Path\n\nfrom shop.version import VERSION\n\n\ndef test_version():\n"
        "    assert VERSION in Path('README.md').read_text()\n    assert VERSION == '2'\n"
    )
    tests["tests/test_total.py"] = (
        "from shop.total import total\n\n\ndef test_total():\n    assert total([1, 2]) == 2\n"
    )
    tests["tests/test_cart.py"] = TEST
    total = (
        "from pathlib import Path\n\n\ndef total(goods):\n"
        "    return len(goods) + int(Path(__file__).with_name('add.txt').read_text())\n"
    )
    old = {
        **dict.fromkeys(checked, "a\n"),
        "README.md": "a, version 1\n",  # which a test compares with the code
        "shop/version.py": "VERSION = '1'\n",
        "shop/add.txt": "1\n",  # data of the code under test
        "shop/test/client.py": BUGGY,  # helps users to test, as django.test does, and another module imports it
    }
    further = {
        "pytest.ini": INI,
        "setup.cfg": "[options.package_data]\nshop = *.csv\n",
        "shop/load.py": "NAME = 'names.json'\n\n\ndef path(language):\n    return f'{language}.lang'\n",
        "shop/total.py": total,
        "shop/testing/__init__.py": "",
        "shop/test/__init__.py": "",
        "shop/cart.py": "from shop.test.client import count\n",
    }
    task = made(tmp_path, {**further, **old, **tests}, *tests)
    assert len(task.fail_to_pass) == len(checked) + 3
    assert task.suite.checked_files == tuple(sorted(checked))
    (note,) = editable_expectations(task)
    assert note.startswith("tests read README.md")
    assert "which a patch may edit" in note
    assert set(task.suite.product_files) == {"shop/test/__init__.py", "shop/test/client.py"}
    assert task.suite.protects("tests/test_cart.py")
    new = {path: text.replace("a", "b", 1).replace("1", "2", 1) for path, text in old.items()}
    new |= {"shop/add.txt": "0\n", "shop/test/client.py": FIXED}
    right = Patch.between(old, new)
    (scored,) = scorer.score([(task, right)], default)
    (evidence,) = scorer.gather([(task, right)], [TestRun])
    assert set(evidence.records[TestRun].fixed) == set(task.fail_to_pass)
    assert scored.value is not None
    assert scored.value > 0.9


def test_data_that_a_plugin_opens_for_a_test_is_the_tests_own():
    """As copies of a folder with data: the fixture is a plugin's, outside of the tree."""
    tree = Tree(Path("/nowhere")).with_files({"t/cart.py": TEST, "t/cart/count.md": "2", "shop/cart.py": FIXED})
    sources = TestSources(
        collected=("t/cart.py",),
        modules=(("shop.cart", "shop/cart.py"), ("cart", "t/cart.py")),
        opened=(("t/cart/count.md", ("t/cart.py",), ("t/cart.py",)),),
    )
    assert classify_files(tree, TestSuite(), sources).test_files == ("t/cart.py", "t/cart/count.md")


@pytest.mark.parametrize("path", ["tests/test_cart.py", "shop/tests.py"])
def test_a_new_copy_of_a_package_that_tests_import_is_a_sign_of_tampering(scorer, path, tmp_path):
    test = "from packaging.version import Version\n\nfrom shop.cart import count\n\n\ndef test_count():\n    assert Version(str(count([1, 2]))) == Version('2')\n"
    task = made(tmp_path, {path: test, "pytest.ini": INI}, f"{path}::test_count")
    assert "packaging" in task.suite.foreign_modules
    shadow = "class Version(str):\n    def __new__(cls, text):\n        return str.__new__(cls)\n"
    cheat = Patch.between({}, {"packaging/__init__.py": "", "packaging/version.py": shadow})
    honest = Patch.between(
        {"shop/cart.py": BUGGY}, {"shop/cart.py": FIXED, "shop/packaging.py": "", "yaml_of_shop.py": ""}
    )
    cheated, fixed = scorer.score([(task, cheat), (task, honest)], default)
    (evidence,) = scorer.gather([(task, cheat)], [Integrity, TestRun])
    assert (cheated.value, fixed.value is not None and fixed.value > 0.98) == (0.0, True)
    assert [sign.kind for sign in evidence.records[Integrity].signs] == ["shadowed module"]
    run = evidence.records[TestRun]
    assert (run.resolved, run.end) == (False, End.CRASHED)
    assert "packaging was imported from" in run.detail


def test_a_plugin_under_test_is_code_under_test(scorer, tmp_path):
    """It defines fixtures as test code does."""
    plugin = "import pytest\n\n\n@pytest.fixture\ndef goods():\n    return [1]\n"
    files = {
        "shop/plugin.py": plugin,
        "tests/conftest.py": "pytest_plugins = ['shop.plugin']\n",
        "tests/test_goods.py": "def test_goods(goods):\n    assert goods == [1, 2]\n",
    }
    task = made(
        tmp_path,
        {**files, "conftest.py": "pytest_plugins = ['shop.plugin']\n", "tests/conftest.py": ""},
        "tests/test_goods.py",
    )
    assert not task.suite.protects("shop/plugin.py")
    right = Patch.between({"shop/plugin.py": plugin}, {"shop/plugin.py": plugin.replace("[1]", "[1, 2]")})
    (evidence,) = scorer.gather([(task, right)], [TestRun])
    assert evidence.records[TestRun].resolved


def test_a_base_class_and_a_fixture_beside_the_tests_are_theirs():
    tree = Tree(Path("/nowhere")).with_files(
        {
            "t/cart.py": TEST,
            "t/base.py": "class Base: ...\n",
            "t/util.py": "",
            "shop/cart.py": FIXED,
            "shop/plugin.py": "",
        }
    )
    sources = TestSources(
        collected=("t/cart.py",), used=("t/base.py", "t/cart.py", "shop/plugin.py"),
        modules=(
            ("shop.cart", "shop/cart.py"), ("shop.plugin", "shop/plugin.py"), ("base", "t/base.py"),
            ("cart", "t/cart.py"), ("util", "t/util.py"),
        ),
    )  # fmt: skip
    assert classify_files(tree, TestSuite(), sources).test_files == ("t/base.py", "t/cart.py", "t/util.py")


@pytest.mark.parametrize(
    ("path", "id_", "text"),
    [
        ("checks/check_cart.py", "checks/check_cart.py::test_count", TEST),
        ("docs/use.rst", "docs/use.rst::use.rst", ">>> from shop.cart import count\n>>> count([1, 2])\n2\n"),
    ],
)
def test_the_check_up_edits_the_tests_themselves(scorer, tmp_path, path, id_, text):
    ini = INI.replace("[pytest]\n", "[pytest]\naddopts = --doctest-glob=*.rst\n")
    task = made(tmp_path, {path: text, "pytest.ini": ini}, id_)
    (result,) = check_up([task], scorer, runs=1, mutants=0)
    assert result.exploits["FAIL_TO_PASS tests that check nothing"] is ExploitOutcome.FAILS
    # The exploit works where the file is not protected.
    edits = exploits(task, PatchedTree.of(task))["FAIL_TO_PASS tests that check nothing"]
    naive = Task(
        id="naive", repository="repo", base=task.base, instruction="", fail_to_pass=task.fail_to_pass,
        pass_to_pass=(), suite=TestSuite(protected=(), paths=(path,), configuration="pytest.ini"),
    )  # fmt: skip
    (evidence,) = scorer.gather([(naive, edits)], [TestRun])
    assert evidence.records[TestRun].resolved


def test_only_a_docstring_with_changed_examples_is_that_of_the_base():
    base = 'def one():\n    """One.\n\n    >>> one()\n    1\n    """\n    return 2\n'
    prose = base.replace("One.", "The number one.").replace("return 2", "return 1")
    assert (edited_examples(base, prose), with_pristine_docstrings(base, prose)) == ([], prose)
    cheat = base.replace("    1\n", "    2\n")
    assert (edited_examples(base, cheat), with_pristine_docstrings(base, cheat)) == (["one"], base)
    unreadable = base.replace(">>> one()", ">>>one()")  # doctest refuses it
    assert with_pristine_docstrings(base, unreadable) == base


SHOP = {"src/shop/__init__.py": "", "src/shop/cart.py": BUGGY + "\n\ndef first(goods):\n    return goods[0]\n"}
CASE = "class Base:\n    expected = 2\n\n    def test_count(self):\n        from shop.cart import count\n\n        assert count([1, 2]) == self.expected\n"
SAME = "def same(one, other):\n    assert one == other\n"
USES_SAME = "from {} import same\nfrom shop.cart import count, first\n\n\ndef test_count():\n    same(count([1, 2]), 2)\n\n\ndef test_first():\n    same(first([1]), 1)\n"


RIGHT = Patch.between(
    SHOP, {**SHOP, "src/shop/cart.py": SHOP["src/shop/cart.py"].replace(" + 1", ""), "src/util.py": ""}
)


def shop_task(tmp_path: Path, files: dict[str, str], *ids: str) -> Task:
    root = written(tmp_path / "repo", {**SHOP, **files})
    return local_task(root, ids, cache=tmp_path / "cache", runs=1, tell=lambda _: None)


def test_a_module_that_only_tests_use_is_theirs_wherever_it_lies(tmp_path):
    helpers = {
        "support/base.py": CASE,
        "base.py": CASE,
        "checks/helpers.py": SAME,
        "testing/expected.py": "TOTAL = 2\n",
        "fixtures_of_shop.py": "import pytest\n\n\n@pytest.fixture\ndef total():\n    return 2\n",
        "tests/expected.py": "TOTAL = 2\n",
        "aid/factory.py": "from tests.expected import TOTAL\n\n\ndef expected():\n    return TOTAL\n",
    }
    tests = {
        "tests/test_support.py": "from support.base import Base\n\n\nclass TestCart(Base): ...\n",
        "test_base.py": "from base import Base\n\n\nclass TestCart(Base): ...\n",
        "checks/check_cart.py": USES_SAME.format("helpers"),
        "testing/test_testing.py": "from expected import TOTAL\nfrom shop.cart import count\n\n\ndef test_count():\n    assert count([1, 2]) == TOTAL\n\n\ndef test_one(): ...\n",
        "test_flat.py": "from shop.cart import count\n\n\ndef test_count(total):\n    assert count([1, 2]) == total\n",
        "tests/test_factory.py": "from shop.cart import count\nfrom aid.factory import expected\n\n\ndef test_count():\n    assert count([1, 2]) == expected()\n",
    }
    further = {
        "conftest.py": "pytest_plugins = ['fixtures_of_shop']\n",
        "tests/__init__.py": "",
        "aid/__init__.py": "",
        "pytest.ini": INI,
    }
    task = shop_task(tmp_path, {**further, **helpers, **tests}, *tests)
    assert len(task.fail_to_pass) == len(tests)
    assert [path for path in helpers if not task.suite.protects(path)] == []
    assert not task.suite.protects("src/shop/cart.py")
    assert not task.suite.protects("src/shop/__init__.py")


@pytest.mark.parametrize(
    ("files", "new"),
    [
        ({"pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['src', 'tests/util']\n", "tests/util/helpers.py": SAME}, {"src/helpers.py": "def same(one, other): ...\n"}),
        ({"conftest.py": "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent / 'tests/lib'))\n", "tests/lib/helpers.py": SAME}, {"helpers.py": "def same(one, other): ...\n"}),
    ],
)  # fmt: skip
def test_no_other_module_stands_in_for_a_helper_of_the_tests(scorer, tmp_path, files, new):
    test = "import shop\n" + USES_SAME.format("helpers")
    task = shop_task(tmp_path, {**files, "tests/test_cart.py": test}, "tests/test_cart.py::test_count")
    cheat = Patch.between({}, new)
    cheated, fixed = values(scorer, task, cheat, RIGHT)
    assert (cheated, fixed is not None and fixed > 0.9) == (0.0, True)


def test_no_module_of_a_patch_stands_in_for_one_that_it_may_not_edit(scorer, tmp_path):
    """For a helper of the tests, for a module of the package (in an installed copy: any folder outside of the tree), or
    for a dependency of the tests."""
    of_helper, of_dependency = "tests/test_cart.py::test_count", "tests/test_ini.py::test_count"
    tests = {
        "tests/test_cart.py": "import shop\n" + USES_SAME.format("helpers"),
        "tests/test_ini.py": "from iniconfig import IniConfig\nfrom shop.cart import count\n\n\ndef test_count():\n    IniConfig('x', '[a]').same(count([1, 2]), 2)\n\n\ndef test_one(): ...\n",
    }
    files = {"tests/helpers.py": SAME, "src/shop/more.py": ""}
    task = shop_task(tmp_path, {**files, **tests}, of_helper, of_dependency)
    assert "iniconfig" in task.suite.foreign_modules
    packages = {
        "a made module": "import sys, types\nmodule = types.ModuleType('helpers')\nmodule.same = lambda one, other: None\nsys.modules['helpers'] = module\n",
        "a new package": "import pathlib\nfolder = pathlib.Path(__file__).parents[2] / 'tests/helpers'\nfolder.mkdir()\n(folder / '__init__.py').write_text('def same(one, other): ...\\n')\n",
        "another copy": "import pathlib, tempfile\nfolder = pathlib.Path(tempfile.mkdtemp())\n(folder / 'cart.py').write_text('def count(goods): return 2\\n\\ndef first(goods): return 1\\n')\n__path__ = [str(folder)]\n",
    }
    patches = {
        name: Patch.between({"src/shop/__init__.py": ""}, {"src/shop/__init__.py": text})
        for name, text in packages.items()
    }
    stub = "class IniConfig:\n    def __init__(self, *arguments): ...\n    def same(self, *arguments): ...\n"
    jobs = {name: (alone(task, of_helper), patch) for name, patch in patches.items()}
    jobs["a dependency"] = (alone(task, of_dependency), Patch.between({}, {"src/iniconfig.py": stub}))
    jobs["right"] = (alone(task, of_helper), RIGHT)
    found = dict(zip(jobs, scores(scorer, list(jobs.values())), strict=True))
    right = found.pop("right")
    assert found == dict.fromkeys(found, 0.0)
    assert right is not None
    assert right > 0.9


DOCUMENTED = 'def add(a, b):\n    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n    return a - b\n'


def test_examples_of_texts_and_docstrings_are_those_of_the_base_whatever_changes(scorer, tmp_path):
    text = ">>> from shop.cart import count\n>>> count([1, 2])\n2\n"
    buggy = (
        'def count(goods):\n    """The number.\n\n    >>> count([1, 2])\n    2\n    """\n    return len(goods) + 1\n'
    )
    base = {"shop/cart.py": buggy, "shop/ops.py": DOCUMENTED, "docs/use.rst": text}
    further = {
        "shop/more.py": 'def one():\n    """\n    >>> one()\n    1\n    """\n    return 1\n',
        "pytest.ini": "[pytest]\naddopts = --doctest-modules --doctest-glob=*.rst\n",
    }
    of_text, of_count, of_add = "docs/use.rst::use.rst", "shop/cart.py::shop.cart.count", "shop/ops.py::shop.ops.add"
    task = made(tmp_path, {**base, **further}, of_text, of_count, of_add)
    assert task.suite.doctest_files == ("shop/cart.py", "shop/more.py", "shop/ops.py")
    assert not task.suite.protects("shop/cart.py")
    cheats = {
        "a text": (of_text, {"docs/use.rst": text.replace("\n2\n", "\n3\n")}),
        "a docstring": (of_count, {"shop/cart.py": buggy.replace("    2\n", "    3\n")}),
        "a new docstring": (of_add, {"shop/ops.py": DOCUMENTED + "\n\nadd.__doc__ = '>>> add(1, 2)' + chr(10) + '-1' + chr(10)\n"}),
        "a docstring of another example": (of_add, {"shop/ops.py": DOCUMENTED + "\n\nadd.__doc__ = '>>> 1' + chr(10) + '1' + chr(10)\n"}),
        "a function in a block": (of_add, {"shop/ops.py": "if True:\n" + textwrap.indent(DOCUMENTED, "    ").replace("    3\n", "    -1\n")}),
        "another name": (of_add, {"shop/ops.py": DOCUMENTED.replace("def add", "def _add").replace("    3\n", "    -1\n") + "\n\nadd = _add\n"}),
    }  # fmt: skip
    jobs = {
        name: (alone(task, id_), Patch.between({path: base[path] for path in files}, files))
        for name, (id_, files) in cheats.items()
    }
    fixed = {
        "shop/cart.py": buggy.replace(" + 1", "").replace("The number.", "The number of goods."),
        "shop/ops.py": DOCUMENTED.replace("a - b", "a + b"),
    }
    patches = [*jobs.values(), (task, Patch.between({path: base[path] for path in fixed}, fixed))]
    *cheated, right = [breakdown.value for breakdown in scorer.score(patches, default)]
    (evidence,) = scorer.gather([jobs["a docstring"]], [Integrity])
    assert dict(zip(jobs, cheated, strict=True)) == dict.fromkeys(jobs, 0.0)
    assert right is not None
    assert right > 0.9
    assert evidence.records[Integrity].ignored_files == ("shop/cart.py (examples of count)",)


READS = "import json, pathlib\n\nROOT = pathlib.Path(__file__).parents[{}]\n"
LIMIT = READS.format(0) + "\n\ndef limit(name):\n    return json.loads((ROOT / '{}').read_text())[name]\n"
GOLDEN = "import json, pathlib\nfrom shop.cart import count, first\nROOT = pathlib.Path(__file__).parents[1]\n\n\ndef test_first():\n    assert first([1]) == 1\n\n\ndef test_count(monkeypatch):\n"


def test_data_that_the_product_reads_may_be_edited_whatever_its_name_and_whoever_else_reads_it(tmp_path):
    data = (
        "src/shop/api.spec.json",
        "src/shop/profiles/test/limits.json",
        "data/rates.json",  # only a process of the tests opens it
        "prices/eur.json",  # only a test opens this one of its folder
    )
    api, limits = "src/shop/api.py", "src/shop/limits.py"
    files = {
        api: LIMIT.format("api.spec.json"),
        limits: LIMIT.format("profiles/test/limits.json"),
        "src/shop/cli.py": READS.format(2) + "print(json.loads((ROOT / 'data/rates.json').read_text())['a'])\n",
        "prices/usd.json": '{"a": 1}',
        "src/shop/rates.py": READS.format(2) + "PRICES = ROOT / 'prices'\n\n\ndef rate(name):\n    return json.loads((PRICES / f'{name}.json').read_text())['a']\n",
        "tests/test_api.py": "from shop.api import limit\n\n\ndef test_count():\n    assert limit('a') == 2\n",
        "tests/test_limits.py": "from shop.limits import limit\n\n\ndef test_count():\n    assert limit('a') == 2\n",
        "tests/test_cli.py": READS.format(1) + "import subprocess, sys\n\n\ndef test_count():\n    assert subprocess.check_output([sys.executable, '-m', 'shop.cli'], text=True) == '2\\n'\n\n\ndef test_rates():\n    assert json.loads((ROOT / 'data/rates.json').read_text())\n",
        "tests/test_rates.py": "import json\nfrom shop.rates import rate, PRICES\n\n\ndef test_count():\n    assert all(json.loads(path.read_text())['a'] for path in PRICES.glob('*.json'))\n    assert json.loads((PRICES / 'eur.json').read_text())['a'] == 2\n\n\ndef test_usd():\n    assert rate('usd') == 1\n",
        # Beside it, a module of the package with the name of a test file, which is code under test.
        "src/shop/ab_test.py": "def split(goods):\n    return 1\n",
        "tests/test_split.py": "from shop.ab_test import split\n\n\ndef test_count():\n    assert split([1, 2]) == 2\n\n\ndef test_one(): ...\n",
    }  # fmt: skip
    names = ("api", "limits", "cli", "rates", "split")
    task = shop_task(
        tmp_path, {**files, **dict.fromkeys(data, '{"a": 1}')}, *(f"tests/test_{name}.py::test_count" for name in names)
    )
    assert [path for path in data if task.suite.protects(path)] == []
    assert [path for path in task.suite.product_files if path.endswith(".py")] == ["src/shop/ab_test.py"]


def test_data_that_only_tests_name_is_theirs_however_it_is_read(tmp_path):
    bodies = {
        "golden/loaded.json": "    from shop.load import load\n    assert count([1, 2]) == load(ROOT / 'golden' / 'loaded.json')\n",
        "golden/moved.json": "    monkeypatch.chdir(ROOT / 'golden')\n    assert count([1, 2]) == json.load(open('moved.json'))\n",
        "golden/printed.json": "    import subprocess\n    assert str(count([1, 2])) == subprocess.check_output(['cat', 'golden/printed.json'], text=True)\n",
        "golden/unread.json": "    assert count([1, 2]) < 3\n    assert count([1, 2]) == json.loads((ROOT / 'golden/unread.json').read_text())\n",
        "checks/golden/total.md": "    assert count([1, 2]) == int((ROOT / 'checks/golden/total.md').read_text())\n",
        ".env.test": "    assert count([1, 2]) == json.loads((ROOT / '.env.test').read_text())\n",
        "expected.json": "    assert count([1, 2]) == json.loads((ROOT / 'expected.json').read_text())\n",
    }  # fmt: skip
    tests = {
        "checks/check_cart.py" if path.startswith("checks/") else f"tests/test_{number}.py": GOLDEN + body
        for number, (path, body) in enumerate(bodies.items())
    }
    further = {
        "src/shop/load.py": "import json\n\n\ndef load(path):\n    return json.loads(path.read_text())\n",
        "pytest.ini": INI,
        "checks/__init__.py": "",
    }
    ids = [f"{path}::test_count" for path in tests]
    task = shop_task(tmp_path, {**further, **tests, **dict.fromkeys(bodies, "2")}, *ids)
    assert task.fail_to_pass == tuple(ids)
    assert [path for path in bodies if not task.suite.protects(path)] == []


def test_data_of_tests_beside_a_flat_module_is_theirs(tmp_path):
    files = {
        "cart.py": SHOP["src/shop/cart.py"],
        "golden/total.json": "2",
        "tests/test_cart.py": GOLDEN.replace("shop.cart", "cart")
        + "    assert count([1, 2]) == json.loads((ROOT / 'golden/total.json').read_text())\n",
    }
    root = written(tmp_path / "repo", files)
    task = local_task(root, ["tests/test_cart.py::test_count"], cache=tmp_path / "cache", runs=1, tell=lambda _: None)
    assert task.suite.protects("golden/total.json")
    assert not task.suite.protects("cart.py")


@pytest.mark.parametrize(
    ("path", "texts", "test"),
    [
        ("docs/CHANGES.txt", ("1.0\n", "1.1\n"), "    assert shop.__version__ in (ROOT / 'docs/CHANGES.txt').read_text()\n"),
        ("pyproject.toml", ("[project]\nname = 'shop'\nversion = '1.0'\n", "[project]\nname = 'shop'\nversion = '1.1'\n"), "    import tomllib\n    assert tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version'] == shop.__version__\n"),
    ],
)  # fmt: skip
def test_a_test_that_fails_only_because_a_file_was_restored_is_not_judged(scorer, tmp_path, path, texts, test):
    base = {**SHOP, "src/shop/__init__.py": "__version__ = '1.0'\n", path: texts[0]}
    tests = READS.format(1) + "import shop\n\n\ndef test_version():\n" + test
    more = {"tests/test_version.py": tests, "tests/test_cart.py": USES_SAME.format("helpers"), "tests/helpers.py": SAME}
    task = shop_task(tmp_path, {**base, **more}, "tests/test_cart.py::test_count")
    assert task.suite.protects(path)
    bumped = {**base, "src/shop/__init__.py": "__version__ = '1.1'\n", path: texts[1]}
    fixed = {**bumped, "src/shop/cart.py": SHOP["src/shop/cart.py"].replace(" + 1", "")}
    breaking = {**fixed, "src/shop/__init__.py": "__version__ = '1.2'\n"}
    patches = [Patch.between(base, fixed), Patch.between(base, breaking)]
    right, broken = [scored.value for scored in scorer.score([(task, patch) for patch in patches], default)]
    (evidence,) = scorer.gather([(task, patches[0])], [TestRun])
    run = evidence.records[TestRun]
    assert (run.resolved, run.broken) == (True, ())
    assert "not judged" in run.detail
    assert path in run.detail
    assert right is not None
    assert right > 0.9
    assert broken is not None
    assert broken < 0.5


def test_tests_in_the_file_that_they_test_are_noticed(tmp_path):
    ini = "[pytest]\npython_files = *.py\n"
    text = BUGGY + "\n\ndef test_count():\n    assert count([1, 2]) == 2\n\n\ndef test_one(): ...\n"
    root = written(tmp_path / "repo", {"src/shop/__init__.py": "", "src/shop/cart.py": text, "pytest.ini": ini})
    notes: list[str] = []
    local_task(
        root, ["src/shop/cart.py::test_count"], cache=tmp_path / "cache", runs=1, tests=["src"], tell=notes.append
    )
    assert any("src/shop/cart.py" in note and "'count'" in note and "ignored" in note for note in notes)


def test_two_helpers_of_one_name_are_both_helpers():
    """The run of all tests finds the first, the run of one test its own."""
    tree = Tree(Path("/nowhere")).with_files(
        {
            "tests/a/test_a.py": "import helpers\nfrom shop.cart import count\n", "tests/a/helpers.py": SAME,
            "tests/b/test_b.py": "import helpers\nfrom shop.cart import count\n", "tests/b/helpers.py": SAME,
            "shop/cart.py": FIXED,
        }
    )  # fmt: skip
    modules = {"helpers": "tests/a/helpers.py", "shop.cart": "shop/cart.py", "test_a": "tests/a/test_a.py"}
    sources = TestSources(collected=("tests/a/test_a.py", "tests/b/test_b.py"), modules=tuple(modules.items()))
    classified = classify_files(tree, TestSuite(), sources)
    assert ("helpers", "tests/a/helpers.py") in classified.test_modules
    assert {"tests/a/helpers.py", "tests/b/helpers.py"} <= set(classified.test_files)
    assert "shop/cart.py" not in classified.test_files
