"""Which packages the tests of a Node project import, and with that, which are installed for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from regrade.datasets.tasks import TestSuite
from regrade.evaluators.execution.packages import installed_packages
from regrade.evaluators.execution.script_imports import imported_packages

TEST = "test/a.test.js"


def write(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "packages"),
    [
        ({TEST: "const test = require('node:test')\nconst deep = require('dequal/lite')\n"}, {"node:test", "dequal"}),
        ({TEST: "import {a} from \"../lib/a.js\"\n", "lib/a.js": "export * from '@scope/name/part'\n"}, {"@scope/name"}),
        ({TEST: "require('../lib/a')\n", "lib/a.cjs": "require( 'b' )", "lib/c.js": "require('c')"}, {"b"}),
        ({TEST: "require('../lib')\n", "lib/index.js": "require('./b')", "lib/b.js": "await import('d')"}, {"d"}),
        ({TEST: "require('..')\n", "package.json": '{"main": "./main"}', "main.js": "require('e')"}, {"e"}),
        ({TEST: "require('..')\n", "package.json": "[", "index.js": "require('f'); require('./test/a.test')"}, {"f"}),
        ({TEST: "require('../../outside')\nrequire(name)\nrequire('./missing')\n"}, set()),
        ({}, set()),
    ],
)  # fmt: skip
def test_packages_are_found_through_the_files_of_the_repository(
    files: dict[str, str], packages: set[str], tmp_path: Path
) -> None:
    assert set(imported_packages(write(tmp_path, files), [TEST])) == packages


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"devDependencies": {"eslint": "^9"}},
        {"dependencies": {"dequal": "^2"}, "devDependencies": {"eslint": "^9"}},
        {"dependencies": "dequal"},
    ],
)
def test_nothing_is_installed_that_no_test_imports(manifest: dict[str, object], tmp_path: Path) -> None:
    write(tmp_path, {"package.json": json.dumps(manifest), TEST: "require('node:test')\n"})
    write(tmp_path, {"eslint.config.js": "require('eslint')\nrequire('dequal')\n"})
    assert installed_packages(TestSuite(runner="node", paths=(TEST,)), tmp_path, tmp_path / "cache") is None
    write(tmp_path, {"node_modules/own/package.json": "{}"})
    own = installed_packages(TestSuite(runner="node", paths=(TEST,)), tmp_path, tmp_path / "cache")
    assert own == tmp_path / "node_modules"


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
def test_what_the_code_imports_is_installed_without_the_tools_of_its_developers(tmp_path: Path) -> None:
    manifest = {"dependencies": {"dequal": "2.0.3"}, "devDependencies": {"mri": "1.2.0"}}
    root = write(tmp_path / "shop", {"package.json": json.dumps(manifest), TEST: "require('..')\n"})
    write(root, {"index.js": "require('dequal')\n"})
    suite = TestSuite(runner="node", paths=(TEST,))
    packages = installed_packages(suite, root, tmp_path / "cache")
    assert packages is not None
    assert (packages / "dequal" / "package.json").is_file()
    assert not (packages / "mri").exists()
    write(root, {TEST: "require('..')\nrequire('mri')\n"})
    both = installed_packages(suite, root, tmp_path / "cache")
    assert both is not None
    assert both != packages
    assert (both / "mri" / "package.json").is_file()
