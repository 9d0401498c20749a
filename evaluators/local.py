"""A task made of a local repository as it lies there: its tests are run, and those that pass every time must keep
passing.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from regrade.datasets.caches import default_cache, usable
from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Limits, Task, TestSuite, Tree
from regrade.evaluators import environments, serialisation
from regrade.evaluators.arguments import checked_amount, checked_count, checked_names, checked_path, chosen_sandbox
from regrade.evaluators.baseline import Baseline, UnusableOptions, baseline
from regrade.evaluators.executions import SHORTEST_LIMIT, SLACK
from regrade.evaluators.probes import code_version
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.static.languages import is_test
from regrade.evaluators.store import key_of, sealed, unsealed
from regrade.rewards.evidence import TestStatus

CARGO_DECIDES = (
    "**/Cargo.toml", "**/Cargo.lock", "**/.cargo/**", "**/tests.rs", "**/build.rs", "rust-toolchain*"
)  # fmt: skip
"""Files that decide what cargo runs and how, beside those that decide anywhere."""
LARGEST_FILE_MB = 50
"""A larger file is left out of the trees: it is data, and would be copied for every worker."""
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
"""pytest plugins that spread, reorder, repeat or measure tests: a verdict needs none of them."""


def local_task(
    repo: str | Path,
    fail_to_pass: Sequence[str] = (),
    *,
    python: str | Path | None = None,
    sandbox: str | Sandbox = "auto",
    runs: int = 3,
    cache: str | Path | None = None,
    time_limit: float = 600.0,
    progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Task:
    """The task of a repository: PASS_TO_PASS are the tests that pass in every one of `runs` runs.

    What was found out is kept in the cache, so nothing runs when nothing changed.

    Args:
        fail_to_pass: ids of tests, classes or files of tests, of which those that fail now must pass; a text is one id.
        python: the interpreter with the repository's dependencies and pytest; None: that of its `.venv` or `venv`, else
        this one.
        time_limit: seconds for one run of the tests as they are.
        progress: called with (runs done, runs in all).
        tell: called with each remark; None: to standard error.

    Raises:
        UserError: no such folder, no test that can be run, none that passes and no FAIL_TO_PASS, or a FAIL_TO_PASS test
            that passes already; or an argument is not what it should be.
    """
    repo = checked_path("repo", repo)
    fail_to_pass = checked_names("fail_to_pass", fail_to_pass)
    runs = checked_count("runs", runs) or 3
    time_limit = checked_amount("time_limit", time_limit)
    if not repo.is_dir():
        raise UserError(f"the repository {str(repo)!r} is no folder: give the path of a repository with --repo")
    repo = repo.resolve()
    tell = tell or _to_stderr
    cache = usable(checked_path("cache", cache) if cache else default_cache())
    requirements = _requirements(repo, None if python is None else checked_path("python", python))
    interpreter = environments.python_for(requirements, cache)
    tree = local_tree(repo, tell)
    suite = _suite(repo, tree, interpreter)
    if suite.runner != "pytest" and python is None:
        # Its virtual environment is there for something else, and may lack the pytest that the worker imports.
        requirements, interpreter = (), environments.python_for((), cache)
    suite, found = _measured(
        tree, suite, requirements, interpreter, chosen_sandbox(sandbox), runs, cache, time_limit, progress
    )
    for place, why in found.collection_errors.items():
        tell(f"{place} could not be collected, its tests count for nothing: {why}")
    wanted = _fail_to_pass(fail_to_pass, found)
    failing = [test for test in found.failing if _fails(test, found)]
    others = [test for test in failing if test not in wanted]
    if others:
        advice = "" if wanted else "name those that the patch is to mend with --fail-to-pass: "
        tell(
            f"{_some(others, 'fails', 'fail')} {'as well' if wanted else 'as the repository stands'} and "
            f"{_one(others, 'counts', 'count')} for nothing: {advice}{_named(others)}"
        )
    if found.unmeasured:
        tell(f"every patch runs all tests, since nobody can tell which of them it reaches: {found.unmeasured}")
    if found.flaky:
        tell(
            f"{_some(found.flaky, 'passes', 'pass')} in some runs only, or {_one(found.flaky, 'is', 'are')} named "
            f"otherwise in each, and {_one(found.flaky, 'counts', 'count')} for nothing: {_named(found.flaky)}"
        )
    guarded = tuple(test for test in found.stable if test not in wanted)
    if not wanted and not guarded:
        raise UserError(
            f"none of the {len(found.outcomes)} tests of the repository passes as it is, so there is nothing to judge "
            "by: mend them, or name with --fail-to-pass what the patch is to mend"
        )
    seconds = max(SHORTEST_LIMIT, round(found.seconds * SLACK, 1))
    first = next((found.outcomes[test].message for test in wanted if test in found.outcomes), "")
    return Task(
        id=f"local:{repo.name}",
        repository=repo.name,
        base=tree,
        instruction="",
        fail_to_pass=wanted,
        pass_to_pass=guarded,
        suite=found.applied_to(suite),
        requirements=requirements,
        limits=Limits(wall_seconds=seconds),
        source="local",
        failure=first,
    )


def local_tree(repo: Path, tell: Callable[[str], None]) -> Tree:
    """The repository's files, without virtual environments, caches (by their CACHEDIR.TAG) and large data."""
    skipped: set[str] = set()
    tree = Tree(repo)
    paths = tree.paths()
    marks = ("pyvenv.cfg", "CACHEDIR.TAG")
    left_out = {path.rpartition("/")[0] + "/" for path in paths if path.endswith(tuple(f"/{mark}" for mark in marks))}
    for path in paths:
        if any(path.startswith(folder) for folder in left_out):
            skipped.add(path)
        elif os.lstat(repo / path).st_size > LARGEST_FILE_MB << 20:
            skipped.add(path)
            tell(f"{path} is larger than {LARGEST_FILE_MB} MB and left out of the trees that tests run in")
    return replace(tree, removed=frozenset(skipped))


def _requirements(repo: Path, python: Path | None) -> tuple[str, ...]:
    """The interpreter, as a task names it: none for the one that runs this."""
    if python is not None:
        return (str(python.absolute()),)
    for folder in (".venv", "venv"):
        candidate = repo / folder / "bin" / "python"
        if candidate.exists():
            return (str(candidate),)
    return ()


def _suite(repo: Path, tree: Tree, interpreter: Path) -> TestSuite:
    """How the tests are run: by pytest if any are Python's, else by what the project's manifest stands for."""
    paths = tree.paths()
    if not any(_is_test(path, ".py") for path in paths):
        for manifest, find in (("package.json", _node_suite), ("Cargo.toml", _cargo_suite)):
            if (repo / manifest).is_file():
                return find(repo, paths)
    return TestSuite(python_path=_python_path(repo), options=_plugin_options(interpreter))


def _node_suite(repo: Path, paths: Sequence[str]) -> TestSuite:
    files = tuple(path for path in paths if _is_test(path, ".js", ".mjs", ".cjs"))
    if not files:
        raise UserError(f"{repo} has a package.json and no test file that Node's runner takes, such as test/a.test.js")
    return TestSuite((), files, protected=(*TestSuite().protected, *files), runner="node")


def _named(tests: Sequence[str]) -> str:
    return ", ".join(map(repr, tests[:5])) + (f" and {len(tests) - 5} more" if len(tests) > 5 else "")


def _some(tests: Sequence[str], one: str, many: str) -> str:
    return f"{len(tests)} of its tests {_one(tests, one, many)}"


def _one(tests: Sequence[str], one: str, many: str) -> str:
    """The form of a verb that goes with so many tests."""
    return one if len(tests) == 1 else many


def _cargo_suite(repo: Path, paths: Sequence[str]) -> TestSuite:
    """Files of `tests/`, and the tests inside the library or program."""
    own = tuple(path for path in ("src/lib.rs", "src/main.rs") if path in paths)
    files = tuple(path for path in paths if re.fullmatch(r"tests/[^/]+\.rs", path))
    if not own and not files:
        raise UserError(f"{repo} has a Cargo.toml and neither src/lib.rs, src/main.rs nor a file in tests/")
    return TestSuite((), (*own, *files), protected=(*TestSuite().protected, *CARGO_DECIDES), runner="cargo")


def _is_test(path: str, *suffixes: str) -> bool:
    return path.endswith(suffixes) and is_test(path)


def _python_path(repo: Path) -> tuple[str, ...]:
    source = repo / "src"
    has_code = source.is_dir() and not (source / "__init__.py").exists() and any(source.rglob("*.py"))
    return ("src", ".") if has_code else (".",)


def _plugin_options(interpreter: Path) -> tuple[str, ...]:
    """Plugins are never loaded by themselves, since a patch could bring one; those of the environment are named."""
    found = environments.pytest_plugins(interpreter)
    return tuple(option for name in sorted(found.keys() - NEVER_LOADED) for option in ("-p", found[name]))


def _measured(
    tree: Tree,
    suite: TestSuite,
    requirements: tuple[str, ...],
    python: Path,
    sandbox: Sandbox,
    runs: int,
    cache: Path,
    time_limit: float,
    progress: Callable[[int, int], None] | None,
) -> tuple[TestSuite, Baseline]:
    """The baseline, from the cache or by running it, with the suite's options as far as pytest knows them."""
    identity = environments.identity(python) + environments.runner_identity(
        suite.runner, environments.installed_packages(suite, tree.root)
    )
    plain = replace(suite, options=(*suite.options, "-o", "addopts="))
    for candidate in (suite, plain):
        key = key_of([tree.digest, repr(candidate), identity, code_version(), sandbox.name, str(runs)]).hex()
        path = cache / "baselines" / f"{key}.json"
        kept = _kept(path)
        if kept is not None:
            return candidate, kept
        try:
            limits = Limits(wall_seconds=time_limit)
            found = baseline(
                tree, candidate, requirements, limits, runs=runs, sandbox=sandbox, cache=cache, progress=progress
            )
        except UnusableOptions:
            if candidate is plain:
                raise
            continue
        except UserError as error:
            raise UserError(f"{tree.root}: {error}") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(f".{os.getpid()}")
        making.write_text(sealed(serialisation.encode(found)), "utf-8")
        making.replace(path)
        return candidate, found
    raise AssertionError("unreachable: the last candidate returns or raises")


def _kept(path: Path) -> Baseline | None:
    """What was found out earlier; None where it is missing, or not as it was written."""
    try:
        return serialisation.decode_plain(Baseline, unsealed(path.read_text("utf-8")))  # type: ignore[no-any-return]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fail_to_pass(given: Sequence[str], found: Baseline) -> tuple[str, ...]:
    """The ids that are meant: a class or file stands for those of its tests that fail now."""
    known = dict.fromkeys((*found.stable, *found.flaky, *found.failing))
    wanted: dict[str, None] = {}
    for name in given:
        below = [test for test in known if test == name or test.startswith((f"{name}::", f"{name}["))]
        failing = [test for test in below if _fails(test, found)]
        flaky = [test for test in below if test in found.flaky]
        if below and not failing:
            if flaky:
                raise UserError(
                    f"the FAIL_TO_PASS test {flaky[0]!r} passes in some runs and fails in others: it can't be judged by"
                )
            raise UserError(
                f"the FAIL_TO_PASS test {name!r} passes already (or is skipped): name a test that fails now"
            )
        if not below and name.split("::")[0] not in found.collection_errors:
            close = [test for test in known if test.endswith(f"::{name}")]
            close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            advice = f"did you mean {close[0]!r}?" if close else "give its id as pytest prints it"
            raise UserError(
                f"the repository has no test {name!r}: {advice} (Tests that a patch brings along are not taken; add "
                "the test to the repository first.)"
            )
        wanted.update(dict.fromkeys(failing or [name]))
    return tuple(wanted)


def _fails(test: str, found: Baseline) -> bool:
    return test in found.failing and found.outcomes[test].status in (TestStatus.FAILED, TestStatus.ERROR)


def _to_stderr(message: str) -> None:
    print(f"regrade: {message}", file=sys.stderr)
