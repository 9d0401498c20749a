"""Go: `go test -json` for each package. Its events are printed, so the package's last test vouches for them.

What a candidate prints can look like an event: a package could print that all tests passed, and leave before the first
one. So each run has one more test, an example that the command adds by `-overlay` under a name drawn for this run, and
that Go runs after all others. Without its result, no test has passed.

The name is among the arguments of the process, where the code under test can look for it: such a verdict is
`in-process`, which does not exclude forged outcomes.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from regrade.evaluators.inside.command_rows import REPORT, Case, CompileCheck, NoReportError, Runner, first_error

MODULES = "go-modules"
"""Name of the folder of downloaded modules, which is mounted above the tree."""
LAST = "last"
"""Name of the file with the name of the run's own test."""
MOST_LINES = 4
"""Lines of the message of a failed test."""
_TEST = re.compile(r"^func ((?:Test|Example|Fuzz)\w*)\(", re.MULTILINE)
_PACKAGE = re.compile(r"^package (\w+)", re.MULTILINE)
_STATUSES = {"pass": "passed", "fail": "failed", "skip": "skipped"}
_ERROR = re.compile(r"^(?P<location>[^\s:]+\.go:\d+)(?::\d+)?: (?P<message>.+)", re.MULTILINE)


def environment() -> Mapping[str, str]:
    """No network, one toolchain, and the same number of threads on every machine."""
    modules = Path.cwd().parent / MODULES
    found = {"GOMODCACHE": str(modules)} if modules.is_dir() else {}
    return {**found, "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOMAXPROCS": "2", "GO111MODULE": "on"}


def package_of(file: str) -> str:
    """The folder of a test file, as an argument of `go`."""
    folder = str(PurePosixPath(file).parent)
    return "." if folder == "." else f"./{folder}"


def _command(files: Sequence[str], folder: Path) -> list[str]:
    """Runs the tests of these files, which are of one package. (`go vet` is left out: it would take longer.)"""
    package = package_of(files[0])
    name = f"Example_{secrets.token_hex(16)}"
    added, overlay = folder / "last_test.go", folder / "overlay.json"
    added.write_text(
        f'package {_tests_package(Path(package))}\n\nimport "fmt"\n\n'
        f'func {name}() {{\n\tfmt.Println("{name}")\n\t// Output: {name}\n}}\n'
    )
    # The last name of its package: examples run in the order of their files.
    place = Path.cwd() / package / f"zzzz_{name}_test.go"
    overlay.write_text(json.dumps({"Replace": {str(place): str(added)}}))
    (folder / LAST).write_text(name)
    chosen = "|".join([*(test for file in files for test in _tests_of(file)), name])
    return [
        *("go", "test", "-json", "-count=1", "-vet=off", "-parallel=1", f"-overlay={overlay}"),
        *("-run", f"^({chosen})$", package),
    ]


def _tests_of(file: str) -> list[str]:
    try:
        return _TEST.findall(Path(file).read_text("utf-8", "replace"))
    except OSError:
        return []


def _tests_package(folder: Path) -> str:
    """The name of the package whose tests run last: the external one, if there is one."""
    texts = [path.read_text("utf-8", "replace") for path in sorted(folder.glob("*_test.go")) if path.is_file()]
    names = [match[1] for text in texts if (match := _PACKAGE.search(text))]
    return next((name for name in names if name.endswith("_test")), names[0] if names else "main")


def _cases(folder: Path, files: Sequence[str], printed: str) -> Iterator[Case]:
    """Ids are `FILE::TEST`, with subtests as `TEST/SUBTEST`."""
    file_of = {test: file for file in reversed(files) for test in _tests_of(file)}
    last = (folder / LAST).read_text()
    finished: list[tuple[str, str]] = []
    said: dict[str, list[str]] = {}
    build: list[str] = []
    for event in _events((folder / REPORT).read_text("utf-8", "replace")):
        test, action = str(event.get("Test", "")), str(event.get("Action", ""))
        if action in ("output", "build-output"):
            (said.setdefault(test, []) if test else build).append(str(event.get("Output", "")))
        elif test and action in _STATUSES:
            finished.append((test, _STATUSES[action]))
    has_ended = {status for test, status in finished if test == last} == {"passed"}
    if not has_ended and all(status != "failed" for _, status in finished):
        raise NoReportError(first_error("".join([printed, *build]), _ERROR))
    for test, status in finished:
        file = file_of.get(test.partition("/")[0])
        if file is not None and (has_ended or status != "passed"):
            yield f"{file}::{test}", status, _message(said.get(test, ())) if status == "failed" else ""


def _events(report: str) -> Iterator[dict[str, object]]:
    for line in report.split("\n"):
        if line.startswith("{"):
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(event, dict):
                yield event


def _message(said: Sequence[str]) -> str:
    """The first lines without Go's own marks; addresses and stack traces differ between runs."""
    lines = [line.strip() for line in "".join(said).split("\n")]
    kept = [line for line in lines if line and not line.startswith(("===", "---"))]
    traced = next((number for number, line in enumerate(kept) if line.startswith("goroutine ")), len(kept))
    return "\n".join(kept[: min(traced, MOST_LINES)])


GO = Runner(command=_command, read=_cases, group=package_of, prints_report=True, error=_ERROR, environment=environment)
GO_CHECK = CompileCheck(
    command=("go", "build", "-o", "/dev/null", "./..."),
    error=_ERROR,
    environment=environment,
)
