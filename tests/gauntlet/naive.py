"""Common scoring methods: run pytest on the patched tree, and trust its exit code, its log or its report.

All of it runs in a sandbox, as in a benchmark's container: a checkout with its git history, the patch applied by
`git apply` or else by `patch`, hidden tests added, then `python -m pytest` as the same user. The three methods read the
outcome of one run.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from gauntlet.attack import Attack
from gauntlet.target import Target, base
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.execution.worker import ENVIRONMENT
from regrade.evaluators.sandboxes import Mount, Program, Sandbox, SandboxError

SCORERS = ("exit code", "log", "junit")
SECONDS = 60.0
PROGRAM = r"""
import json, os, resource, subprocess, sys, time
spec = json.loads(sys.stdin.readline())
if spec["user"] >= 0:
    os.setgroups([]); os.setresgid(*[spec["user"]] * 3); os.setresuid(*[spec["user"]] * 3)
answer = os.dup(1)
def scorer():
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30,) * 2)
    if spec["user"] >= 0:
        resource.setrlimit(resource.RLIMIT_NPROC, (64, 64))
    os.chdir(spec["root"])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    git = ["git", "-c", "safe.directory=*"]
    for patch in spec["patches"]:
        if subprocess.run([*git, "apply", "--whitespace=nowarn", patch], **quiet).returncode:
            subprocess.run(["patch", "--batch", "--forward", "--fuzz=5", "-p1", "-i", patch], **quiet)
        subprocess.run([*git, "status", "--porcelain"], **quiet)
        for test in spec["hidden"]:
            subprocess.run([*git, "apply", "--whitespace=nowarn", test], **quiet)
        if spec["builds"]:
            subprocess.run([sys.executable, "setup.py", "--quiet", "--version"], **quiet, timeout=60)
        for old in ("report.xml", spec["log"]):
            if os.path.exists(old): os.unlink(old)
        command = [sys.executable, "-m", "pytest", "-rA", "--junitxml=report.xml"]
        with open(spec["log"], "wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                       env={**os.environ, "PYTHONPATH": ".", "CI": "1"})
            try:
                status = process.wait(spec["seconds"])
            except subprocess.TimeoutExpired:
                process.kill()
                status = -9
        if patch != spec["patches"][-1]:
            subprocess.run([*git, "checkout", "-q", "-f", "."], **quiet)
            subprocess.run([*git, "clean", "-qfdx", "-e", ".patches"], **quiet)
    time.sleep(0.3)  # until the files are copied out of the container
    report = open("report.xml", "rb").read() if os.path.exists("report.xml") else b""
    log = open(spec["log"], "rb").read()
    said = {"status": status, "log": log.decode("utf-8", "replace"), "report": report.decode("utf-8", "replace")}
    with open(spec["result"], "w") as file:
        json.dump(said, file)
child = os.fork()
if child == 0:
    try:
        scorer()
    finally:
        os._exit(0)
deadline = time.monotonic() + 4 * spec["seconds"] + 30
while time.monotonic() < deadline and os.waitpid(child, os.WNOHANG)[0] == 0:
    time.sleep(0.02)
os.write(answer, b"over\n")
"""


@dataclass(frozen=True)
class Outcome:
    """The outputs of one run."""

    status: int
    log: str
    report: str

    def rewards(self, task: Task) -> dict[str, bool]:
        """Scorer -> does it consider the task resolved?"""
        tests = {*task.fail_to_pass, *task.pass_to_pass}
        return {
            "exit code": self.status == 0,
            "log": tests <= _passed_by_log(self.log),
            "junit": tests <= _passed_by_report(self.report, {test.partition("::")[0] for test in tests}),
        }


LOST = Outcome(-1, "", "")
"""Of a run that killed its scorer."""


def run(attack: Attack, patches: list[Patch], target: Target, sandbox: Sandbox, python: Path, folder: Path) -> Outcome:
    """Apply and run patches in sequence in one container; return the outcome of the last."""
    tree = folder / "tree"
    shutil.copytree(target.checkout(attack.bug), tree, symlinks=True)
    for path in attack.hidden:
        (tree / path).unlink()
    own = tree / ".patches"
    own.mkdir()
    for number, patch in enumerate(patches):
        (own / str(number)).write_text(patch.text)
    (own / "hidden").write_text(Patch.between({}, {path: base(attack.bug)[path] for path in attack.hidden}).text)
    for path in (folder, tree, *tree.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    mount = Mount(tree, "/repo", writable=True)
    root = sandbox.seen_at(mount)
    spec = {
        "root": root,
        # A user of its own: limits on processes count per user, and another exploit may be a fork bomb at that moment.
        "user": next(iter(sandbox.candidate_users()), -1),
        "patches": [f"{root}/.patches/{number}" for number in range(len(patches))],
        "hidden": [f"{root}/.patches/hidden"] if attack.hidden else [],
        "builds": attack.builds,
        "log": f"{root}/.patches/log",
        "result": f"{root}/.patches/result",
        "seconds": min(SECONDS, attack.wall_seconds or SECONDS),
    }
    environment = {**ENVIRONMENT, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    try:
        session = sandbox.start(
            Program(python=python, arguments=("-s", "-c", PROGRAM), mounts=(mount,), environment=environment)
        )
    except SandboxError as error:
        raise RuntimeError(f"{attack.id}: {error}") from error
    try:
        session.send(json.dumps(spec).encode() + b"\n")
        session.receive(6 * SECONDS + 60)
    except (TimeoutError, SandboxError):
        return LOST
    finally:
        session.close()
    try:
        return Outcome(**json.loads((own / "result").read_text()))
    except (OSError, ValueError, TypeError):
        return LOST


def _passed_by_log(log: str) -> set[str]:
    """As log parsers do: the last line of each test counts."""
    passed_by_test: dict[str, bool] = {}
    for line in log.splitlines():
        if match := re.match(r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (\S+)", line):
            passed_by_test[match[2]] = match[1] == "PASSED"
    return {test for test, passed in passed_by_test.items() if passed}


def _passed_by_report(report: str, test_files: set[str]) -> set[str]:
    try:
        cases = list(ET.fromstring(report).iter("testcase"))
    except ET.ParseError:
        return set()
    files = {path.removesuffix(".py").replace("/", "."): path for path in test_files}
    passed = set()
    for case in cases:
        dotted, name = case.get("classname", ""), case.get("name", "")
        module = next((module for module in files if dotted == module or dotted.startswith(f"{module}.")), "")
        inner = dotted.removeprefix(module).strip(".")
        if module and {child.tag for child in case} <= {"system-out", "system-err", "properties"}:
            passed.add("::".join(filter(None, (files[module], *inner.split("."), name))))
    return passed


def interpreter() -> Path:
    """The current interpreter, which has pytest."""
    return Path(sys.executable)
