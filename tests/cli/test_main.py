"""The whole command: help, exit codes, Ctrl-C, and messages for missing requirements."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from regrade.cli.main import CommandGroup
from regrade.datasets.errors import PeerFailedError
from regrade.evaluators.sandboxes.process import descendants

VERBS = (
    "doctor",
    "tasks",
    "score",
    "explain",
    "train",
    "evaluate",
    "compare",
    "rescore",
    "rewards",
    "report",
    "demo",
    "study",
)


WITHOUT_TORCH = """\
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from regrade.cli.main import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize(("number", "printed"), [("0", "error: process 1 of 2 has failed\n"), ("1", "")])
def test_of_several_processes_the_main_one_tells_of_another(monkeypatch, number, printed):
    program = typer.Typer(cls=CommandGroup)

    @program.command()
    def train():
        raise PeerFailedError("process 1 of 2 has failed")

    program.command("other")(lambda: None)
    monkeypatch.setenv("RANK", number)
    done = CliRunner().invoke(program, ["train"])
    assert (done.exit_code, done.stderr) == (2, printed)


def command(*arguments):
    return [sys.executable, "-c", "from regrade.cli.main import main; main()", *map(str, arguments)]


def test_help_lists_the_commands_and_each_has_help(regrade):
    listed = regrade("--help").out
    for verb in VERBS:
        assert verb in listed
        told = regrade(verb, "--help")
        assert told.code == 0
        assert "Usage: " in told.out
        assert len(told.out.splitlines()) > 8


def test_help_imports_no_slow_module():
    code = "import sys; from regrade.cli.main import app; app(['--help'], standalone_mode=False); " + (
        "print([n for n in ('numpy', 'pandas', 'torch', 'rich', 'pytest', 'jinja2', 'scipy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version(regrade):
    assert regrade("--version").out.startswith("regrade 0.")


@pytest.mark.parametrize("arguments", [["fly"], ["score"], ["train", "sft"], ["compare", "--margin", "x"]])
def test_wrong_usage_exits_2(regrade, arguments):
    outcome = regrade(*arguments)
    assert outcome.code == 2
    assert "Error" in outcome.err


def test_doctor_reports_what_works(regrade):
    outcome = regrade("doctor", "--json")
    found = json.loads(outcome.out)
    checks = {check["name"]: check for check in found["checks"]}
    assert outcome.code == (0 if found["can_score"] else 2)
    assert checks["python"]["works"]
    assert checks["sandbox process"]["works"]
    assert "no security boundary" in checks["sandbox process"]["detail"]
    assert all(check["works"] or check["advice"] for check in checks.values())
    assert "Patches can be scored here" in regrade("doctor").out


def test_doctor_exits_2_where_a_needed_program_is_missing(regrade, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    outcome = regrade("doctor")
    assert outcome.code == 2
    assert "apt-get install git" in " ".join(outcome.out.split())


def test_a_training_needs_a_limit(regrade):
    assert regrade("train", "sft", "--out", "run").is_refusal("--steps", "--minutes")


def test_without_network_and_packages_the_error_is_one_line(regrade, monkeypatch, tmp_path):
    monkeypatch.setenv("REGRADE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    assert regrade("tasks", "validate", "builtin", "--split", "validation").is_refusal("network")


@pytest.mark.slow
def test_a_missing_model_is_one_line(regrade, repo, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task = {"instruction": "mend it", "repository": str(repo), "fail_to_pass": ["tests/test_calc.py::test_add"]}
    (tmp_path / "tasks.json").write_text(json.dumps(task))
    outcome = regrade("evaluate", "no-such/model", "--tasks", tmp_path / "tasks.json", "--out", tmp_path / "run")
    assert outcome.is_refusal("no-such/model", "smollm2-135m")


def is_running(pid: int) -> bool:
    """The process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def program(pid: int) -> str:
    """The name of the program that the process runs; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("sandbox", ["auto", "process"])
def test_an_interruption_leaves_no_process_and_no_folder(repo, fix, tmp_path, number, code, sandbox):
    (repo / "tests" / "test_slow.py").write_text(
        "import subprocess\n\n\ndef test_slow():\n    subprocess.run(['sleep', '120'])\n"
    )
    (tmp_path / "scratch").mkdir()
    environment = {**os.environ, "REGRADE_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "scratch")}
    arguments = command("score", fix, "--repo", repo, "--sandbox", sandbox)
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while "sleep" not in map(program, descendants(process.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)  # until the test is under way
        started = descendants(process.pid)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert len(started) > 1, err
    assert process.returncode == code
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("stopped;"), err
    assert "Traceback" not in err
    deadline = time.monotonic() + 5
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert {pid for pid in started if is_running(pid)} == set()
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize(
    "verb", [("train", "sft", "--steps", "1", "--out", "run"), ("demo", "--quick", "--out", "run")]
)
def test_without_torch_one_line_names_the_extra_to_install(verb, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *verb], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    extra = "needs torch, which is not installed: run pip install '.[train]' in the checkout of regrade"
    assert done.stderr == f"error: `regrade {verb[0]}` {extra}\n"
    assert not (tmp_path / "run").exists()
