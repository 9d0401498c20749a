"""Detects the test runner and the suite of a repository from its files."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.tasks import TestSuite, Tree
from regrade.evaluators.execution import environments
from regrade.evaluators.static.languages import is_test
from regrade.evaluators.task_curation.layout import python_path

DEPENDENCIES = ("devDependencies", "dependencies", "peerDependencies", "optionalDependencies")
SCRIPTS = (".js", ".mjs", ".cjs", ".jsx", ".mts", ".cts", ".tsx", ".ts")
VITEST_DECIDES = (
    *("package.json", "**/vitest.*", "**/vite.config.*", "**/tsconfig*.json"),
    *("**/__mocks__/**", "**/__snapshots__/**", "**/__fixtures__/**"),
)
"""Files that affect what Vitest runs and how."""
CARGO_DECIDES = (
    "**/Cargo.toml", "**/Cargo.lock", "**/.cargo/**", "**/tests.rs", "**/build.rs", "rust-toolchain*"
)  # fmt: skip
"""Files that affect what cargo runs and how, in addition to those of any repository."""
GO_DECIDES = ("**/go.mod", "**/go.sum", "go.work", "go.work.sum", "vendor/**", "**/testdata/**")
"""The same for `go test`; folders called `testdata` are for the files that tests read."""
GO_SKIPPED = frozenset({"vendor", "testdata"})
NEVER_LOADED = frozenset(
    {
        "xdist",
        "xdist.looponfail",
        "pytest_cov",
        "randomly",
        "random_order",
        "reverse",
        "sugar",
        "rerunfailures",
        "html",
        "metadata",
        "instafail",
        "pytest_memray",
        "profiling",
        "flaky",
        "testmon",
        "watch",
        "benchmark",
    }
)
"""pytest plugins that distribute, reorder, repeat or measure tests: a verdict needs none of them."""


def local_suite(repo: Path, tree: Tree, interpreter: Path, cache: Path, named: Sequence[str] = ()) -> TestSuite:
    """The suite for pytest if there are Python tests, else for the runner of the project's manifest.

    Args:
        named: ids and files of tests that the user names: a Python file among them holds tests.

    Raises:
        UserError: there are manifests, but no test that their runners accept.
    """
    paths = tree.paths()
    if not any(_is_test(path, ".py") for path in paths) and not any(file_of(test).endswith(".py") for test in named):
        finders = {"package.json": _node_suite, "Cargo.toml": _cargo_suite, "go.mod": _go_suite}
        problems: list[UserError] = []
        for find in (find for manifest, find in finders.items() if (repo / manifest).is_file()):
            try:
                return find(repo, paths)
            except UserError as problem:  # such as a package.json for the site of a project in another language
                problems.append(problem)
        if problems:
            raise problems[0]
    return TestSuite(python_path=python_path(repo, tree, interpreter), options=_plugin_options(interpreter, cache))


def _node_suite(repo: Path, paths: Sequence[str]) -> TestSuite:
    """The suite of Vitest, if the manifest names it, else of Node's own runner."""
    runner = _script_runner(repo / "package.json")
    suffixes, decides = ((".js", ".mjs", ".cjs"), ()) if runner == "node" else (SCRIPTS, VITEST_DECIDES)
    files = tuple(path for path in paths if _is_test(path, *suffixes) and not path.endswith(".d.ts"))
    if not files:
        name = "Node's own runner" if runner == "node" else "Vitest"
        raise UserError(f"{repo} has a package.json and no test file for {name}, such as test/a.test{suffixes[-1]}")
    return TestSuite(python_path=(), paths=files, protected=(*TestSuite().protected, *decides, *files), runner=runner)


def _script_runner(manifest: Path) -> str:
    """The runner that `npm test` starts; if that says nothing of it, Vitest where it is a dependency."""
    try:
        value = json.loads(manifest.read_text("utf-8"))
    except (OSError, ValueError):
        return "node"
    tables = {key: value.get(key) if isinstance(value, dict) else None for key in ("scripts", *DEPENDENCIES)}
    scripts, *declared = (table if isinstance(table, dict) else {} for table in tables.values())
    command = str(scripts.get("test", ""))
    if re.search(r"\bvitest\b", command):
        return "vitest"
    is_node = re.search(r"\bnode\b.*--test\b", command)
    return "vitest" if not is_node and any("vitest" in table for table in declared) else "node"


def _cargo_suite(repo: Path, paths: Sequence[str]) -> TestSuite:
    """The files of `tests/`, and the unit tests of the library or program."""
    own = tuple(path for path in ("src/lib.rs", "src/main.rs") if path in paths)
    files = tuple(path for path in paths if re.fullmatch(r"tests/[^/]+\.rs", path))
    if not own and not files:
        raise UserError(f"{repo} has a Cargo.toml and neither src/lib.rs, src/main.rs nor a file in tests/")
    return TestSuite(
        python_path=(), paths=(*own, *files), protected=(*TestSuite().protected, *CARGO_DECIDES), runner="cargo"
    )


def _go_suite(repo: Path, paths: Sequence[str]) -> TestSuite:
    """The test files of the module at the root; `go` itself leaves out the same folders."""
    inner = {path.removesuffix("go.mod") for path in paths if path.endswith("/go.mod")}
    files = tuple(
        path
        for path in paths
        if _is_test(path, ".go")
        and not any(part in GO_SKIPPED or part.startswith(("_", ".")) for part in path.split("/"))
        and not path.startswith(tuple(inner))
    )
    if not files:
        raise UserError(f"{repo} has a go.mod and no test file of that module, such as shop_test.go")
    return TestSuite(python_path=(), paths=files, protected=(*TestSuite().protected, *GO_DECIDES), runner="go")


def _is_test(path: str, *suffixes: str) -> bool:
    return path.endswith(suffixes) and is_test(path)


def _plugin_options(interpreter: Path, cache: Path) -> tuple[str, ...]:
    """Plugins are never loaded automatically, since a patch could add one; plugins of the environment are named."""
    plugins = environments.cached_pytest_plugins(interpreter, cache)
    return tuple(option for name in sorted(plugins.keys() - NEVER_LOADED) for option in ("-p", plugins[name]))
