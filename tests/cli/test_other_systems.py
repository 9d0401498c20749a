"""macOS and Windows: runs are imported, compared and reported there; what runs a patch is refused in words.

Simulated: the modules and functions of the operating system that are missing there are taken away, after the import of
the libraries, which know both systems (`subprocess` itself
needs WNOHANG and SIGKILL here).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from regrade.evaluators.sandboxes import KINDS

UNIX_ONLY = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
LINUX_ONLY = """
    os.memfd_create os.pidfd_open os.sched_getaffinity os.sched_setaffinity signal.pidfd_send_signal os.listxattr
"""
NOT_ON_WINDOWS = """
    os.fchmod os.fork os.geteuid os.getpgid os.getuid os.killpg os.mkfifo os.nice os.setsid os.sysconf os.uname
    os.getloadavg os.O_CLOEXEC os.O_DIRECTORY os.O_NOFOLLOW os.O_NONBLOCK
    signal.SIGALRM signal.SIGCONT signal.SIGHUP signal.SIGPROF signal.SIGQUIT signal.SIGSTOP
    signal.SIGUSR1 signal.SIGXCPU signal.setitimer
"""
SYSTEMS = {
    "darwin": ((), LINUX_ONLY + " resource.prlimit"),
    "win32": (UNIX_ONLY, LINUX_ONLY + NOT_ON_WINDOWS),
}
LIBRARIES = "hypothesis jinja2 matplotlib.pyplot pandas rich.console scipy.stats statsmodels.api"
PROGRAM = """
import importlib.machinery, json, os, signal, sys
import asyncio, concurrent.futures, multiprocessing, resource, shutil, sqlite3, subprocess, tempfile, zipfile
import pydantic.types, sysconfig, typer.testing, urllib.request

sysconfig.get_config_vars()
system, missing, blocked, libraries, commands = json.loads(sys.argv[1])
for name in libraries.split():
    importlib.import_module(name)
for name in missing.split():
    delattr(globals()[name.partition(".")[0]], name.partition(".")[2])
for name in blocked:
    sys.modules[name] = None  # its import raises ModuleNotFoundError
find = importlib.machinery.PathFinder.find_spec
importlib.machinery.PathFinder.find_spec = lambda name, *more: None if name == "torch" else find(name, *more)
sys.platform = system

from regrade.cli.main import app

for command in commands:
    done = typer.testing.CliRunner().invoke(app, command)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    print(json.dumps([done.exit_code, done.stdout, done.stderr]))
"""


def run(
    system: str, folder: Path, commands: Mapping[str, list[str]], libraries: str = ""
) -> dict[str, tuple[int, str, str]]:
    """Name of a command -> its exit code, standard output and standard error, all in one process of that system."""
    blocked, missing = SYSTEMS[system]
    given = json.dumps([system, missing, blocked, libraries, list(commands.values())])
    environment = {**os.environ, "REGRADE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, given], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {name: json.loads(line) for name, line in zip(commands, done.stdout.splitlines(), strict=True)}


def test_windows_imports_compares_and_reports(tmp_path: Path) -> None:
    """And so does macOS, where less is missing."""
    rows = "".join(f"t{task},{policy},{task % 2},0\n" for task in range(8) for policy in ("old", "new"))
    (tmp_path / "results.csv").write_text("task,policy,fixed,broken\n" + rows)
    commands = {
        "help": ["--help"],
        "import": ["import", "results.csv", "--out", "run"],
        "compare": ["compare", "run", "--baseline-policy", "old", "--fail-on", "never", "--json"],
        "report": ["report", "run"],
    }
    done = run("win32", tmp_path, commands, LIBRARIES)
    for name, (code, _, errors) in done.items():
        assert code == 0, (name, errors)
    assert json.loads(done["compare"][1])["metrics"]["fix_rate"]["difference"] == 0
    assert "<html" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(("system", "name"), [("darwin", "macOS"), ("win32", "Windows")])
def test_what_runs_patches_is_refused_in_words(
    system: str, name: str, repo: Path, fix: Path, tasks: Path, tmp_path: Path
) -> None:
    done = run(
        system,
        tmp_path,
        {
            "doctor": ["doctor", "--json"],
            "score": ["score", str(fix), "--repo", str(repo)],
            "process": ["score", str(fix), "--repo", str(repo), "--sandbox", "process"],
            "docker": ["score", str(fix), "--repo", str(repo), "--sandbox", "docker"],
            "evaluate": ["evaluate", "no-op", "--tasks", str(tasks), "--out", "evaluated"],
        },
    )
    code, out, _ = done.pop("doctor")
    problem = f"running patches needs Linux, and this is {name}: run regrade in a Linux container"
    sandboxes = [check for check in json.loads(out)["checks"] if check["name"].startswith("sandbox")]
    assert (code, [check["name"] for check in sandboxes]) == (2, [f"sandbox {kind}" for kind in KINDS])
    assert all(check["advice"].startswith(problem) for check in sandboxes)
    for command, (code, out, errors) in done.items():
        (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert (code, out, line) == (2, "", errors.splitlines()[-1]), command
        assert problem in line, command
    assert not (tmp_path / "evaluated").exists()
