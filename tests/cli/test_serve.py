"""`regrade serve`: what it refuses before it loads anything, in one line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from regrade.cli.main import app
from regrade.datasets.errors import UserError
from regrade.policy_training.serving.settings import ServerSettings, is_loopback


def refusal(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["serve", *arguments])
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.splitlines()
    return line


def test_beyond_this_machine_a_token_is_required(tasks: Path, tmp_path: Path) -> None:
    line = refusal("--tasks", str(tasks), "--host", "0.0.0.0")
    assert "'0.0.0.0', beyond this machine, without a token" in line
    short = tmp_path / "token"
    short.write_text("secret\n")
    assert "at least 16 printable ASCII characters" in refusal("--tasks", str(tasks), "--token-file", str(short))
    assert "secret" not in refusal("--tasks", str(tasks), "--token-file", str(short))
    assert "cannot be read: No such file" in refusal("--tasks", str(tasks), "--token-file", str(tmp_path / "none"))


def test_wrong_tasks_rewards_and_ports_are_named(tasks: Path, tmp_path: Path) -> None:
    assert "none.json" in refusal("--tasks", str(tmp_path / "none.json"))
    assert "unknown reward 'nonsense'" in refusal("--tasks", str(tasks), "--reward", "nonsense")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = refusal("--tasks", str(tasks), "--reward", "tests", "--port", port, "--sandbox", "process")
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line


@pytest.mark.parametrize(
    ("host", "is_here"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("", False), ("localhost.attacker.example", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_what_is_this_machine(host: str, is_here: bool) -> None:
    assert is_loopback(host) is is_here


@pytest.mark.parametrize(
    "setting",
    [{"port": -1}, {"port": 65_536}, {"queue": 0}, {"queue": 1.5}, {"deadline": float("nan")}, {"linger": -1},
     {"token": "with a\nline break"}, {"body_megabytes": True}, {"stop_seconds": float("inf")}],
    ids=str,
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(setting))):
        ServerSettings(**setting)  # type: ignore[arg-type]
