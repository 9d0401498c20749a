"""Which files decide the tests: shown by a run, whatever their names."""

from __future__ import annotations

import textwrap
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
    # A cache for all tests of this file: equal repositories are measured once.
    return local_task(root, ids, cache=folder.parent / "baselines", runs=1, tell=lambda _: None)


def fix() -> Patch:
    return Patch.between({"shop/cart.py": BUGGY}, {"shop/cart.py": FIXED})


def values(task: Task, cache: Path, *patches: Patch) -> list[float | None]:
    with Scorer(workers=1, cache=cache) as scorer:
        return [breakdown.value for breakdown in scorer.score([(task, patch) for patch in patches], default)]


INI = "[pytest]\npython_files = tests.py check_*.py *_tests.py *_spec.py t/*.py test_*.py\n"


@pytest.mark.parametrize(
    "path", ["shop/tests.py", "checks/check_cart.py", "shop/cart_tests.py", "spec/cart_spec.py", "t/cart.py"]
)
def test_a_file_that_tests_were_collected_from_is_a_test_file_whatever_its_name(tmp_path, path):
    task = made(tmp_path, {path: TEST, "pytest.ini": INI}, f"{path}::test_count")
    cheat = Patch.between({path: TEST}, {path: TEST.replace("== 2", "== 3")})
    assert path in task.suite.test_files
    cheated, fixed = values(task, tmp_path / "cache", cheat, fix())
    assert cheated == 0.0
    assert fixed is not None
    assert fixed > 0.99
    assert prepare(task, cheat).ignored == (path,)


def test_a_text_with_doctests_is_a_test_file(tmp_path):
    text = ">>> from shop.cart import count\n>>> count([1, 2])\n2\n"
    task = made(
        tmp_path, {"docs/use.rst": text, "pytest.ini": "[pytest]\naddopts = --doctest-glob=*.rst\n"}, "docs/use.rst"
    )
    cheat = Patch.between({"docs/use.rst": text}, {"docs/use.rst": text.replace("\n2\n", "\n3\n")})
    cheated, fixed = values(task, tmp_path / "cache", cheat, fix())
    assert (cheated, fixed is not None and fixed > 0.99) == (0.0, True)


def test_the_examples_of_a_docstring_are_those_of_the_base(tmp_path):
    buggy = (
        'def count(goods):\n    """The number.\n\n    >>> count([1, 2])\n    2\n    """\n    return len(goods) + 1\n'
    )
    fixed = buggy.replace(" + 1", "").replace("The number.", "The number of goods.")
    cheat = buggy.replace("    2\n", "    3\n")
    task = made(
        tmp_path,
        {"shop/cart.py": buggy, "pytest.ini": "[pytest]\naddopts = --doctest-modules\n"},
        "shop/cart.py::shop.cart.count",
    )
    assert task.suite.doctest_files == ("shop/cart.py",)
    assert not task.suite.protects("shop/cart.py")
    patches = [Patch.between({"shop/cart.py": buggy}, {"shop/cart.py": text}) for text in (cheat, fixed)]
    cheated, right = values(task, tmp_path / "cache", *patches)
    assert (cheated, right is not None and right > 0.9) == (0.0, True)
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        (evidence,) = scorer.gather([(task, patches[0])], [Integrity])
    assert evidence.records[Integrity].ignored_files == ("shop/cart.py (examples of count)",)


@pytest.mark.parametrize(
    "path", ["pytest.toml", ".pytest.toml", ".pytest.ini", "pytest.ini", "tests/pytest.ini", "tests/pytest.toml"]
)
@pytest.mark.parametrize("has_configuration", [False, True])
def test_a_new_configuration_file_of_a_patch_has_no_effect(tmp_path, path, has_configuration):
    files = {"tests/test_cart.py": TEST}
    if has_configuration:
        files["setup.cfg"] = "[tool:pytest]\naddopts = -ra\n"
    task = made(tmp_path, files, "tests/test_cart.py::test_count")
    assert task.suite.configuration == ("setup.cfg" if has_configuration else "")
    table = (
        "[pytest]\naddopts = '-p shop.plugin'\n" if path.endswith("toml") else "[pytest]\naddopts = -p shop.plugin\n"
    )
    plugin = "import shop.cart\nshop.cart.count = len\n"
    cheat = Patch.between({}, {path: table, "shop/plugin.py": plugin})
    assert values(task, tmp_path.parent / "baselines", cheat) == [0.0]
    # The name alone also keeps it out of the tree.
    assert path in prepare(task, cheat).ignored


def test_data_that_only_tests_open_is_theirs(tmp_path):
    test = (
        "import json\nfrom pathlib import Path\n\nfrom shop.cart import count\n\n\ndef test_count():\n"
        "    cases = json.loads((Path(__file__).parents[1] / 'cases' / 'count.json').read_text())\n"
        "    assert [count(goods) for goods, _ in cases] == [expected for _, expected in cases]\n"
    )
    cases = "[[[1, 2], 2]]"
    task = made(tmp_path, {"checks/test_cart.py": test, "cases/count.json": cases}, "checks/test_cart.py::test_count")
    cheat = Patch.between({"cases/count.json": cases}, {"cases/count.json": "[[[1, 2], 3]]"})
    cheated, fixed = values(task, tmp_path / "cache", cheat, fix())
    assert (cheated, fixed is not None and fixed > 0.99) == (0.0, True)


def test_data_of_the_code_under_test_may_be_edited(tmp_path):
    code = "from pathlib import Path\n\n\ndef count(goods):\n    return len(goods) + int(Path(__file__).with_name('add.txt').read_text())\n"
    task = made(
        tmp_path,
        {"shop/cart.py": code, "shop/add.txt": "1\n", "tests/test_cart.py": TEST},
        "tests/test_cart.py::test_count",
    )
    right = Patch.between({"shop/add.txt": "1\n"}, {"shop/add.txt": "0\n"})
    (value,) = values(task, tmp_path / "cache", right)
    assert value is not None
    assert value > 0.98


COMPARES = """\
from pathlib import Path

from shop.cart import count


def test_count():
    assert str(count([1, 2])) == Path({path!r}).read_text().strip()
"""


@pytest.mark.parametrize(
    ("test", "data", "code"),
    [
        ("spec/cart_spec.py", "spec/golden/count.md", "shop/cart.py"),  # a document among tests
        ("spec/cart_spec.py", "spec/golden/count.py", "shop/cart.py"),  # so is text with the name of source code
        ("shop/tests.py", "shop/expected.txt", "shop/cart.py"),  # tests and their data between the modules
        ("shop/tests.py", "shop/golden/count.txt", "shop/cart.py"),
        ("checks/check_cart.py", "cases/count.txt", "shop/cart.py"),
        ("test_flat.py", "expected.txt", "shop/cart.py"),
    ],
)
def test_expected_output_in_a_file_is_the_tests_own_wherever_it_lies(tmp_path, test, data, code):
    task = made(tmp_path, {test: COMPARES.format(path=data), data: "2\n", "pytest.ini": INI}, f"{test}::test_count")
    assert task.suite.protects(data)
    assert not task.suite.protects(code)
    cheat = Patch.between({data: "2\n"}, {data: "3\n"})
    cheated, fixed = values(task, tmp_path / "cache", cheat, fix())
    assert (cheated, fixed is not None and fixed > 0.99) == (0.0, True)


@pytest.mark.parametrize(
    ("test", "data", "more"),
    [
        ("shop/tests.py", "shop/names.json", {"shop/load.py": "NAME = 'names.json'\n"}),  # the code loads it elsewhere
        ("shop/tests.py", "shop/de.json", {"shop/load.py": "def path(language):\n    return f'{language}.json'\n"}),
        ("shop/tests.py", "shop/de.json", {"setup.cfg": "[options.package_data]\nshop = *.json\n"}),
        ("tests/test_data.py", "shop/names.json", {}),
        ("tests/test_data.py", "docs/names.md", {}),
        ("test_flat.py", "README.md", {}),
    ],
)
def test_data_of_the_product_that_a_test_checks_may_be_edited(tmp_path, test, data, more):
    check = f"from pathlib import Path\n\nimport shop.load\n\n\ndef test_data():\n    assert 'b' in Path({data!r}).read_text()\n"
    files = {test: check, data: "a\n", "shop/load.py": "", "pytest.ini": INI, **more}
    task = made(tmp_path, files, f"{test}::test_data")
    (value,) = values(task, tmp_path / "cache", Patch.between({data: "a\n"}, {data: "b\n"}))
    assert value is not None
    assert value > 0.9
    assert task.suite.checked_files == (data,)
    (note,) = editable_expectations(task)
    assert note.startswith(f"tests read {data}, which a patch may edit")


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
def test_a_new_copy_of_a_package_that_tests_import_is_a_sign_of_tampering(path, tmp_path):
    test = "from packaging.version import Version\n\nfrom shop.cart import count\n\n\ndef test_count():\n    assert Version(str(count([1, 2]))) == Version('2')\n"
    task = made(tmp_path, {path: test, "pytest.ini": INI}, f"{path}::test_count")
    assert "packaging" in task.suite.foreign_modules
    shadow = "class Version(str):\n    def __new__(cls, text):\n        return str.__new__(cls)\n"
    cheat = Patch.between({}, {"packaging/__init__.py": "", "packaging/version.py": shadow})
    honest = Patch.between(
        {"shop/cart.py": BUGGY}, {"shop/cart.py": FIXED, "shop/packaging.py": "", "yaml_of_shop.py": ""}
    )
    cheated, fixed = values(task, tmp_path / "cache", cheat, honest)
    assert (cheated, fixed is not None and fixed > 0.98) == (0.0, True)
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        (evidence,) = scorer.gather([(task, cheat)], [Integrity, TestRun])
    assert [sign.kind for sign in evidence.records[Integrity].signs] == ["shadowed module"]
    run = evidence.records[TestRun]
    assert (run.resolved, run.end) == (False, End.CRASHED)
    assert "packaging was imported from" in run.detail


def test_a_document_that_a_test_compares_with_the_code_may_be_edited(tmp_path):
    test = "from pathlib import Path\n\nfrom shop.version import VERSION\n\n\ndef test_version():\n    assert VERSION in Path('README.md').read_text()\n    assert VERSION == '2'\n"
    task = made(
        tmp_path, {"shop/version.py": "VERSION = '1'\n", "README.md": "Version 1\n", "tests/test_version.py": test},
        "tests/test_version.py::test_version",
    )  # fmt: skip
    right = Patch.between(
        {"shop/version.py": "VERSION = '1'\n", "README.md": "Version 1\n"},
        {"shop/version.py": "VERSION = '2'\n", "README.md": "Version 2\n"},
    )
    (value,) = values(task, tmp_path / "cache", right)
    assert value is not None
    assert value > 0.98


def test_code_in_a_folder_called_test_is_code_under_test(tmp_path):
    """The package helps its users to test, as django.test does, and another module imports it."""
    files = {
        "shop/testing/__init__.py": "",
        "shop/test/__init__.py": "",
        "shop/test/client.py": BUGGY,
        "shop/cart.py": "from shop.test.client import count\n",
        "tests/test_cart.py": TEST,
    }
    task = made(tmp_path, files, "tests/test_cart.py::test_count")
    assert set(task.suite.product_files) == {"shop/test/__init__.py", "shop/test/client.py"}
    assert task.suite.protects("tests/test_cart.py")
    right = Patch.between({"shop/test/client.py": BUGGY}, {"shop/test/client.py": FIXED})
    (value,) = values(task, tmp_path / "cache", right)
    assert value is not None
    assert value > 0.9


def test_a_plugin_under_test_is_code_under_test(tmp_path):
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
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
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
def test_the_check_up_edits_the_tests_themselves(tmp_path, path, id_, text):
    ini = INI.replace("[pytest]\n", "[pytest]\naddopts = --doctest-glob=*.rst\n")
    task = made(tmp_path, {path: text, "pytest.ini": ini}, id_)
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
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


@pytest.mark.parametrize(
    ("helper", "files", "id_"),
    [
        ("support/base.py", {"tests/test_cart.py": "from support.base import Base\n\n\nclass TestCart(Base): ...\n", "support/base.py": CASE}, "tests/test_cart.py::TestCart::test_count"),
        ("base.py", {"test_cart.py": "from base import Base\n\n\nclass TestCart(Base): ...\n", "base.py": CASE}, "test_cart.py::TestCart::test_count"),
        ("checks/helpers.py", {"checks/check_cart.py": USES_SAME.format("helpers"), "checks/helpers.py": SAME, "pytest.ini": INI}, "checks/check_cart.py::test_count"),
        ("testing/expected.py", {"testing/test_cart.py": "from expected import TOTAL\nfrom shop.cart import count\n\n\ndef test_count():\n    assert count([1, 2]) == TOTAL\n\n\ndef test_one(): ...\n", "testing/expected.py": "TOTAL = 2\n"}, "testing/test_cart.py::test_count"),
        ("fixtures_of_shop.py", {"test_cart.py": "from shop.cart import count\n\n\ndef test_count(total):\n    assert count([1, 2]) == total\n", "fixtures_of_shop.py": "import pytest\n\n\n@pytest.fixture\ndef total():\n    return 2\n", "conftest.py": "pytest_plugins = ['fixtures_of_shop']\n"}, "test_cart.py::test_count"),
        ("tests/expected.py", {"tests/__init__.py": "", "tests/expected.py": "TOTAL = 2\n", "support/__init__.py": "", "support/factory.py": "from tests.expected import TOTAL\n\n\ndef expected():\n    return TOTAL\n", "tests/test_cart.py": "from shop.cart import count\nfrom support.factory import expected\n\n\ndef test_count():\n    assert count([1, 2]) == expected()\n"}, "tests/test_cart.py::test_count"),
    ],
)  # fmt: skip
def test_a_module_that_only_tests_use_is_theirs_wherever_it_lies(tmp_path, helper, files, id_):
    root = written(tmp_path / "repo", {**SHOP, **files})
    task = local_task(root, [id_], cache=tmp_path / "cache", runs=1, tell=lambda _: None)
    assert task.suite.protects(helper)
    assert not task.suite.protects("src/shop/cart.py")
    assert not task.suite.protects("src/shop/__init__.py")


@pytest.mark.parametrize(
    ("files", "new"),
    [
        ({"pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['src', 'tests/util']\n", "tests/util/helpers.py": SAME}, {"src/helpers.py": "def same(one, other): ...\n"}),
        ({"conftest.py": "import sys, pathlib\nsys.path.append(str(pathlib.Path(__file__).parent / 'tests/lib'))\n", "tests/lib/helpers.py": SAME}, {"helpers.py": "def same(one, other): ...\n"}),
        ({"tests/helpers.py": SAME}, {"src/shop/__init__.py": "import sys, types\nmodule = types.ModuleType('helpers')\nmodule.same = lambda one, other: None\nsys.modules['helpers'] = module\n"}),
        ({"tests/helpers.py": SAME, "src/shop/more.py": ""}, {"src/shop/__init__.py": "import pathlib\nfolder = pathlib.Path(__file__).parents[2] / 'tests/helpers'\nfolder.mkdir()\n(folder / '__init__.py').write_text('def same(one, other): ...\\n')\n"}),
    ],
)  # fmt: skip
def test_no_other_module_stands_in_for_a_helper_of_the_tests(tmp_path, files, new):
    test = "import shop\n" + USES_SAME.format("helpers")
    root = written(tmp_path / "repo", {**SHOP, **files, "tests/test_cart.py": test})
    task = local_task(root, ["tests/test_cart.py::test_count"], cache=tmp_path / "cache", runs=1, tell=lambda _: None)
    cheat = Patch.between(dict.fromkeys(new.keys() & SHOP.keys(), ""), new)
    right = Patch.between(
        SHOP, {**SHOP, "src/shop/cart.py": SHOP["src/shop/cart.py"].replace(" + 1", ""), "src/util.py": ""}
    )
    cheated, fixed = values(task, tmp_path / "cache", cheat, right)
    assert (cheated, fixed is not None and fixed > 0.9) == (0.0, True)


def test_no_module_of_a_patch_stands_in_for_a_dependency_of_the_tests(tmp_path):
    test = "from iniconfig import IniConfig\nfrom shop.cart import count\n\n\ndef test_count():\n    IniConfig('x', '[a]').same(count([1, 2]), 2)\n\n\ndef test_one(): ...\n"
    root = written(tmp_path / "repo", {**SHOP, "tests/test_cart.py": test})
    task = local_task(root, ["tests/test_cart.py::test_count"], cache=tmp_path / "cache", runs=1, tell=lambda _: None)
    assert "iniconfig" in task.suite.foreign_modules
    stub = "class IniConfig:\n    def __init__(self, *arguments): ...\n    def same(self, *arguments): ...\n"
    assert values(task, tmp_path / "cache", Patch.between({}, {"src/iniconfig.py": stub})) == [0.0]


DOCUMENTED = 'def add(a, b):\n    """Add.\n\n    >>> add(1, 2)\n    3\n    """\n    return a - b\n'


@pytest.mark.parametrize(
    "cheat",
    [
        DOCUMENTED + "\n\nadd.__doc__ = '>>> add(1, 2)' + chr(10) + '-1' + chr(10)\n",
        DOCUMENTED + "\n\nadd.__doc__ = '>>> 1' + chr(10) + '1' + chr(10)\n",
        "if True:\n" + textwrap.indent(DOCUMENTED, "    ").replace("    3\n", "    -1\n"),
        DOCUMENTED.replace("def add", "def _add").replace("    3\n", "    -1\n") + "\n\nadd = _add\n",
    ],
)
def test_examples_are_those_of_the_base_however_the_docstring_changes(tmp_path, cheat):
    files = {"shop/__init__.py": "", "shop/ops.py": DOCUMENTED, "pytest.ini": "[pytest]\naddopts = --doctest-modules\n"}
    files["shop/more.py"] = 'def one():\n    """\n    >>> one()\n    1\n    """\n    return 1\n'
    root = written(tmp_path / "repo", files)
    task = local_task(root, ["shop/ops.py::shop.ops.add"], cache=tmp_path / "cache", runs=1, tell=lambda _: None)
    texts = (cheat, DOCUMENTED.replace("a - b", "a + b"))
    patches = [Patch.between({"shop/ops.py": DOCUMENTED}, {"shop/ops.py": text}) for text in texts]
    cheated, right = values(task, tmp_path / "cache", *patches)
    assert (cheated, right is not None and right > 0.9) == (0.0, True)


READS = "import json, pathlib\n\nROOT = pathlib.Path(__file__).parents[{}]\n"
LIMIT = READS.format(0) + "\n\ndef limit(name):\n    return json.loads((ROOT / '{}').read_text())[name]\n"
GOLDEN = "import json, pathlib\nfrom shop.cart import count, first\nROOT = pathlib.Path(__file__).parents[1]\n\n\ndef test_first():\n    assert first([1]) == 1\n\n\ndef test_count(monkeypatch):\n"


def data_task(tmp_path: Path, files: dict[str, str], id_: str = "tests/test_cart.py::test_count") -> Task:
    return local_task(
        written(tmp_path / "repo", {**SHOP, **files}), [id_], cache=tmp_path / "cache", runs=1, tell=lambda _: None
    )


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("src/shop/api.spec.json", {"src/shop/api.py": LIMIT.format("api.spec.json"), "tests/test_cart.py": "from shop.api import limit\n\n\ndef test_count():\n    assert limit('a') == 2\n"}),
        ("src/shop/profiles/test/limits.json", {"src/shop/api.py": LIMIT.format("profiles/test/limits.json"), "tests/test_cart.py": "from shop.api import limit\n\n\ndef test_count():\n    assert limit('a') == 2\n"}),
        ("data/rates.json", {"src/shop/cli.py": READS.format(2) + "print(json.loads((ROOT / 'data/rates.json').read_text())['a'])\n", "tests/test_cart.py": READS.format(1) + "import subprocess, sys\n\n\ndef test_count():\n    assert subprocess.check_output([sys.executable, '-m', 'shop.cli'], text=True) == '2\\n'\n\n\ndef test_rates():\n    assert json.loads((ROOT / 'data/rates.json').read_text())\n"}),
        ("data/eur.json", {"data/usd.json": '{"a": 1}', "src/shop/rates.py": READS.format(2) + "DATA = ROOT / 'data'\n\n\ndef rate(name):\n    return json.loads((DATA / f'{name}.json').read_text())['a']\n", "tests/test_cart.py": "import json\nfrom shop.rates import rate, DATA\n\n\ndef test_count():\n    assert all(json.loads(path.read_text())['a'] for path in DATA.glob('*.json'))\n    assert json.loads((DATA / 'eur.json').read_text())['a'] == 2\n\n\ndef test_usd():\n    assert rate('usd') == 1\n"}),
    ],
)  # fmt: skip
def test_data_that_the_product_reads_may_be_edited_whatever_its_name_and_whoever_else_reads_it(tmp_path, path, files):
    task = data_task(tmp_path, {**files, path: '{"a": 1}'})
    assert not task.suite.protects(path)


@pytest.mark.parametrize(
    ("path", "body", "files"),
    [
        ("golden/total.json", "    from shop.load import load\n    assert count([1, 2]) == load(ROOT / 'golden' / 'total.json')\n", {"src/shop/load.py": "import json\n\n\ndef load(path):\n    return json.loads(path.read_text())\n"}),
        ("golden/total.json", "    monkeypatch.chdir(ROOT / 'golden')\n    assert count([1, 2]) == json.load(open('total.json'))\n", {}),
        ("golden/total.json", "    import subprocess\n    assert str(count([1, 2])) == subprocess.check_output(['cat', 'golden/total.json'], text=True)\n", {}),
        ("golden/total.json", "    assert count([1, 2]) < 3\n    assert count([1, 2]) == json.loads((ROOT / 'golden/total.json').read_text())\n", {}),
        ("checks/golden/total.md", "", {"pytest.ini": INI, "checks/__init__.py": "", "checks/check_cart.py": GOLDEN + "    assert count([1, 2]) == int((ROOT / 'checks/golden/total.md').read_text())\n"}),
        (".env.test", "    assert count([1, 2]) == json.loads((ROOT / '.env.test').read_text())\n", {}),
        ("expected.json", "    assert count([1, 2]) == json.loads((ROOT / 'expected.json').read_text())\n", {}),
    ],
)  # fmt: skip
def test_data_that_only_tests_name_is_theirs_however_it_is_read(tmp_path, path, body, files):
    files = {"tests/test_cart.py": GOLDEN + body, **files} if body else files
    id_ = "tests/test_cart.py::test_count" if body else "checks/check_cart.py::test_count"
    assert data_task(tmp_path, {**files, path: "2"}, id_).suite.protects(path)


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
def test_a_test_that_fails_only_because_a_file_was_restored_is_not_judged(tmp_path, path, texts, test):
    base = {**SHOP, "src/shop/__init__.py": "__version__ = '1.0'\n", path: texts[0]}
    tests = READS.format(1) + "import shop\n\n\ndef test_version():\n" + test
    more = {"tests/test_version.py": tests, "tests/test_cart.py": USES_SAME.format("helpers"), "tests/helpers.py": SAME}
    task = data_task(tmp_path, {**base, **more})
    assert task.suite.protects(path)
    bumped = {**base, "src/shop/__init__.py": "__version__ = '1.1'\n", path: texts[1]}
    fixed = {**bumped, "src/shop/cart.py": SHOP["src/shop/cart.py"].replace(" + 1", "")}
    breaking = {**fixed, "src/shop/__init__.py": "__version__ = '1.2'\n"}
    right, broken = values(task, tmp_path / "cache", Patch.between(base, fixed), Patch.between(base, breaking))
    with Scorer(workers=1, cache=tmp_path / "cache") as scorer:
        (evidence,) = scorer.gather([(task, Patch.between(base, fixed))], [TestRun])
    run = evidence.records[TestRun]
    assert (run.resolved, run.broken) == (True, ())
    assert "not judged" in run.detail
    assert path in run.detail
    assert right is not None
    assert right > 0.9
    assert broken is not None
    assert broken < 0.5


def test_a_module_of_a_package_is_not_taken_from_an_installed_copy(tmp_path):
    """A stand-in for the installed copy: any folder outside of the tree."""
    files = {"tests/test_cart.py": USES_SAME.format("helpers"), "tests/helpers.py": SAME}
    task = data_task(tmp_path, files)
    cheat = "import pathlib, tempfile\nfolder = pathlib.Path(tempfile.mkdtemp())\n(folder / 'cart.py').write_text('def count(goods): return 2\\n\\ndef first(goods): return 1\\n')\n__path__ = [str(folder)]\n"
    assert values(
        task, tmp_path / "cache", Patch.between({"src/shop/__init__.py": ""}, {"src/shop/__init__.py": cheat})
    ) == [0.0]


def test_a_module_with_the_name_of_a_test_file_in_a_package_is_code_under_test(tmp_path):
    test = "from shop.ab_test import split\n\n\ndef test_count():\n    assert split([1, 2]) == 2\n\n\ndef test_one(): ...\n"
    task = data_task(tmp_path, {"src/shop/ab_test.py": "def split(goods):\n    return 1\n", "tests/test_cart.py": test})
    assert task.suite.product_files == ("src/shop/ab_test.py",)


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
