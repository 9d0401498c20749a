"""Policies of a TOML file and of words: what they become, and how mistakes in them are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from regrade.datasets.errors import UserError
from regrade.policy_training.policies.commands import CommandPolicy
from regrade.policy_training.policies.endpoints import EndpointPolicy
from regrade.policy_training.policies.recorded import Recorded
from regrade.policy_training.policies.scripted import NoOp
from regrade.policy_training.policy_files import EndpointRow, checkpoints_in, entrant_of_words, read_policies

BEHIND = EndpointRow(endpoint="http://localhost:1/v1", model="")


def toml(folder: Path, text: str) -> Path:
    (folder / "policies.toml").write_text(text)
    return folder / "policies.toml"


def test_each_kind_of_policy(tmp_path: Path, tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "x")
    for name in ("sft", "steps/checkpoint-20", "steps/checkpoint-100", "steps/other"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "agent.sh").write_text("#!/bin/sh\n")
    (tmp_path / "agent.sh").chmod(0o755)
    entry = {"instance_id": "second", "model_name_or_path": "else", "model_patch": None}
    (tmp_path / "preds.json").write_text(json.dumps([entry]))
    path = toml(
        tmp_path,
        """
        [[policy]]
        name = "base"
        role = "baseline"
        label = "SFT"
        model = "sft"
        series = "steps"
        step = 0
        [[policy]]
        endpoint = "http://localhost:8000/v1"
        model = "org/big"
        key = "KEY"
        seconds = 5
        omit = ["seed"]
        [policy.body]
        top_p = 0.9
        [[policy]]
        name = "agent"
        command = ["./agent.sh", "{instruction}"]
        count_failures = true
        [[policy]]
        scripted = "no-op"
        [[policy]]
        checkpoints = "steps"
        [[policy]]
        predictions = "preds.json"
        role = "control"
        """,
    )
    found = {entrant.name: entrant for entrant in read_policies(path, tasks)}
    assert {name: (entrant.role, entrant.series, entrant.step) for name, entrant in found.items()} == {
        "base": ("baseline", "steps", 0), "big": ("candidate", "", None), "agent": ("candidate", "", None),
        "no-op": ("scripted", "", None), "steps@20": ("checkpoint", "steps", 20),
        "steps@100": ("checkpoint", "steps", 100), "else": ("control", "", None),
    }  # fmt: skip
    assert found["base"].label == "SFT"
    assert found["base"].spec == {"model": str(tmp_path / "sft")}
    assert [name for name in found if "@" in name] == ["steps@20", "steps@100"], "by step, not by name"
    big = found["big"].load(tasks)
    assert isinstance(big, EndpointPolicy)
    assert (big.endpoint.seconds, big.endpoint.body, big.endpoint.omit) == (5.0, {"top_p": 0.9}, ("seed",))
    assert "KEY" not in json.dumps(dict(found["big"].spec))
    agent = found["agent"].load(tasks)
    assert isinstance(agent, CommandPolicy)
    assert agent.command.arguments == (str(tmp_path / "agent.sh"), "{instruction}")
    assert agent.command.count_failures
    assert isinstance(found["no-op"].load(tasks), NoOp)
    assert isinstance(found["else"].load(tasks), Recorded)
    assert [name for name, entrant in found.items() if entrant.is_fixed] == ["no-op", "else"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = ", "is no TOML"),
        ("", "expected one or more tables"),
        ("[policy]\nmodel = 'a'", "expected one or more tables"),
        ("[[policies]]\nmodel = 'a'", "unknown: 'policies'"),
        ("[[policy]]\nname = 'a'", "policy 1: what is it"),
        (
            "[[policy]]\nmodel = 'a'\n[[policy]]\nmodel = 'a'\ntemprature = 1",
            "policy 2: unknown key 'temprature'; known keys: .*model",
        ),
        ("[[policy]]\nmodel = 1", "policy 1: 'model' must be a string; found 1"),
        ("[[policy]]\nmodel = 'a'\nrole = 'boss'", "boss"),
        ("[[policy]]\nscripted = 'yes'", "no scripted policy 'yes'"),
        ("[[policy]]\ncommand = []", "empty"),
        ("[[policy]]\ncheckpoints = 'nowhere'", "there is no folder"),
        ("[[policy]]\npredictions = 'nowhere'", "cannot read"),
        ("[[policy]]\nendpoint = 'x'\nmodel = 'm'", "no URL"),
        ("[[policy]]\nendpoint = 'http://x:99999'\nmodel = 'm'", "no URL"),
        ("[[policy]]\nendpoint = 'http://['\nmodel = 'm'", "no URL"),
        ("[[policy]]\nendpoint = 'http://x'\nmodel = 'm'\nat_a_time = 0", "policy 1: .*at_a_time"),
        ("[[policy]]\nendpoint = 'http://x'\nmodel = 'm'\nseconds = nan", "policy 1: .*seconds"),
        ("[[policy]]\nendpoint = 'http://x'\nmodel = 'm'\nbody = {a = inf}", "`body` is no JSON"),
        ("[[policy]]\ncommand = 'true'\nseconds = -1", "policy 1: .*seconds"),
        ('[[policy]]\ncommand = "say \'no"', "cannot be split into words"),
        ("[[policy]]\ncommand = ['true', \"\\u0000\"]", "NUL"),
        ("[[policy]]\ncommand = 'true'\nenvironment = {'A=B' = 'x'}", "no environment variable"),
    ],
)
def test_a_mistake_in_the_file_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_policies(toml(tmp_path, text), ())
    assert "\n" not in str(caught.value)


def test_words_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    for words, name, spec in [
        ("smollm2-135m", "smollm2-135m", {"model": "smollm2-135m"}),
        ("org/model", "model", {"model": "org/model"}),
        ("mine=org/model", "mine", {"model": "org/model"}),
        ("a=b", "a=b", {"model": "a=b"}),
        ("endpoint:org/m", "m", {"endpoint": "http://localhost:1/v1", "model": "org/m", "api": "chat"}),
        ("x=endpoint:m", "x", {"endpoint": "http://localhost:1/v1", "model": "m", "api": "chat"}),
        (
            f"command:{sys.executable} -c 'a=1 b'",
            Path(sys.executable).name,
            {"command": [sys.executable, "-c", "a=1 b"]},
        ),
        (f"me=command:{sys.executable} x", "me", {"command": [sys.executable, "x"]}),
        ("nothing=no-op", "nothing", {"scripted": "no-op"}),
    ]:
        found = entrant_of_words(words, BEHIND, ())
        assert (found.name, dict(found.spec)) == (name, spec), words


def test_checkpoints_are_told_by_name_and_sorted_by_step(tmp_path: Path) -> None:
    for name in ("grpo-100", "grpo-20", "sft_5", "checkpoint-7", "grpo", "notes-3"):
        (tmp_path / name).mkdir()
        if name != "notes-3":
            (tmp_path / name / "config.json").write_text("{}")
    found = [(series, step) for series, step, _ in checkpoints_in(tmp_path)]
    assert found == sorted([("grpo", 20), ("grpo", 100), ("sft", 5), (tmp_path.name, 7)])
