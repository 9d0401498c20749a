"""A training in two processes, as `accelerate launch` starts them: on CPUs with gloo, and real execution."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands import launch
from accelerate.utils.launch import prepare_multi_gpu_env

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.agent_tools import EpisodeLimits
from regrade.policy_training.policies.models import LanguageModel, load_model
from regrade.policy_training.train import train
from regrade.policy_training.trainers import processes
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.resuming import ResumePoints
from regrade.policy_training.trainers.settings import (
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    SFTSettings,
    StabilitySettings,
)
from regrade.policy_training.training_plan import TrainingPlan

STEPS = 3
GRPO = OnlineSettings(
    algorithm="grpo", prompts_per_step=2, samples_per_prompt=6, learning_rate=1e-3, generation="trl"
)  # fmt: skip
REUSED = replace(GRPO, num_iterations=2)
"""Two steps learn from one generation, so a state of the first one holds the answers of each process."""
DEATH = ("regrade.evaluators.storage.run:Run", "log", 2)
"""Of the main process, in the second step: there is a state of the first one."""
RLOO = OnlineSettings(algorithm="rloo", prompts_per_step=2, samples_per_prompt=4, learning_rate=1e-3, generation="trl")
AGENT = AgentFormat(EpisodeLimits(turns=2, test_runs=1), max_tokens=120)
LIMIT = {"budget": Budget(steps=STEPS)}


@pytest.fixture(scope="module")
def runs(
    undecided_folder: Path, tasks: list[Task], evidence: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """All plans, in one launch: the two processes take longer to start than to train. The last plan fails."""
    folder = tmp_path_factory.mktemp("two")
    model = {"model": str(undecided_folder)}
    watched = {"stability": StabilitySettings(kl_every=1)}
    sft = {"settings": SFTSettings(batch_size=2, frozen=0.5), "budget": Budget(steps=2, seconds=600)}
    probe = {"probe_tasks": tasks[1:], "stability": StabilitySettings(probe_every=1)}
    learns_twice = {**model, **LIMIT, **watched, "settings": REUSED}
    plans = {
        "killed": ({**learns_twice, "resume": ResumePoints(every=1)}, tasks, (DEATH,)),
        "refused": ({**model, **LIMIT, "settings": OnlineSettings(algorithm="grpo")}, tasks, ""),
        "sft": ({**model, **sft, **probe}, tasks[:1], ""),
        "grpo": (learns_twice, tasks, ""),
        "drifting": ({**model, **watched, "settings": GRPO, "budget": Budget(steps=2)}, tasks, "drifts"),
        "agent": ({**model, "settings": GRPO, "agent": AGENT, "lora_rank": 2, "budget": Budget(steps=2)}, tasks, ""),
        "rloo": (
            {
                **model,
                **watched,
                "settings": RLOO,
                "gradient_checkpointing": True,
                "budget": Budget(steps=2),
                "save_every": 1,
            },
            tasks,
            "",
        ),
        "failing": ({**model, **LIMIT, "settings": GRPO}, tasks, "fails"),
    }
    job = folder / "job"
    job.write_bytes(pickle.dumps({"plans": plans, "evidence": evidence, "out": folder}))
    program = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "--num_machines", "1"]
    done = subprocess.run(
        [*command, program, job], capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    return folder, done


def digest_of(model: LanguageModel) -> str:
    """As `two_processes.py` writes it."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.model.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def seen(folder: Path, name: str) -> list[dict[str, Any]]:
    files = [folder / name / f"process-{number}.json" for number in range(2)]
    return [json.loads(file.read_text()) for file in files]


def steps(run: Path, phase: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "training" / f"{phase}.jsonl").read_text().splitlines()]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    times = ("seconds", "step_time", "waiting_share")
    return [{k: v for k, v in row.items() if k not in times and not k.endswith("_seconds")} for row in rows]


@pytest.mark.slow
def test_all_processes_end_with_the_same_weights_and_one_writes(runs: Any, undecided: LanguageModel) -> None:
    folder, done = runs
    before = digest_of(undecided)
    for name, phase in (("sft", "sft"), ("grpo", "grpo"), ("agent", "grpo"), ("rloo", "rloo")):
        assert (folder / name / "process-1.json").exists(), done.stderr[-3000:]
        first, second = seen(folder, name)
        assert first["weights"] == second["weights"] not in ("", before), name
        assert first["checkpoint"] == second["checkpoint"]
        run = folder / name / "run"
        logged = [row["step"] for row in steps(run, phase) if "loss" in row]
        assert logged == list(range(1, len(logged) + 1)), name  # each step once
        assert not [row for row in steps(run, phase) if "alarms" in row]
        assert not list((run / "trainer").glob("checkpoint-*"))
    scores = [row["probe/score"] for row in steps(folder / "sft" / "run", "sft") if "probe/score" in row]
    assert len(scores) == 3  # the main process plays it before the first step and after each
    kept = sorted(path.name for path in (folder / "rloo" / "run" / "checkpoints").iterdir())
    assert kept == ["rloo", "rloo-1", "rloo-2"]


@pytest.mark.slow
def test_each_process_judges_its_share(runs: Any) -> None:
    folder, done = runs
    assert (folder / "rloo" / "process-1.json").exists(), done.stderr[-3000:]
    for name, samples in (("grpo", 6), ("rloo", 4)):
        for mine, others in zip(*(each["judged"] for each in seen(folder, name)), strict=True):
            assert (len(mine), len(set(mine))) == (samples, 1)  # a whole group
            assert {*mine, *others} == {"second", "add"}
    rows = steps(folder / "grpo" / "run", "grpo")
    assert len(rows) == STEPS
    assert not any("kl" in row for row in rows)  # the second step learns from attempts of older weights
    rows = steps(folder / "rloo" / "run", "rloo")
    assert len(rows) == 2
    assert all("kl" in row for row in rows)  # measured over both shares


@pytest.mark.slow
def test_a_killed_training_of_two_processes_goes_on_with_the_same_curve(runs: Any) -> None:
    folder, done = runs
    killed = folder / "killed"
    assert (killed / "fork-1-1").exists(), done.stderr[-3000:]
    assert [(killed / f"fork-0-{number}").read_text() for number in range(2)] == [str(-signal.SIGKILL), "0"]
    assert [(killed / f"fork-1-{number}").read_text() for number in range(2)] == ["0", "0"], done.stderr[-3000:]
    assert [each["weights"] for each in seen(folder, "killed")] == [each["weights"] for each in seen(folder, "grpo")]
    judged = [[each["judged"] for each in seen(folder, name)] for name in ("killed", "grpo")]
    assert judged[0] == [whole[1:] for whole in judged[1]]  # the first generation is in the state
    assert without_times(steps(killed / "run", "grpo")) == without_times(steps(folder / "grpo" / "run", "grpo"))
    assert not list((killed / "run" / "trainer").glob("checkpoint-*"))


@pytest.mark.slow
def test_what_one_process_measures_all_react_to(runs: Any) -> None:
    folder, done = runs
    first, second = seen(folder, "drifting")
    assert first["weights"] == second["weights"] != "", done.stderr[-3000:]
    alarms = [row for row in steps(folder / "drifting" / "run", "grpo") if "alarm/kl" in row]
    assert [row["rollbacks"] for row in alarms] == [1, 2]
    assert 45 < alarms[0]["alarm/kl"] < 55  # the mean of both
    records = sorted((folder / "drifting" / "run" / "trainer" / "alarms").glob("*/alarm.json"))
    assert [path.parent.name for path in records] == ["step-1", "step-2"]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other_with_one_error(runs: Any) -> None:
    folder, done = runs
    assert done.returncode != 0
    first, second = (each["error"] for each in seen(folder, "failing"))
    said = "the disk of this machine is full: free some space"
    assert second == ["UserError", said]
    assert first == ["PeerFailedError", f"process 1 of 2 (from 0) has failed, so all end: {said}"]
    assert not (folder / "failing" / "run" / "checkpoints").exists()
    first, second = (each["error"] for each in seen(folder, "refused"))
    assert first[0] == "UserError"
    assert first[1].startswith("grpo with generation 'shared' runs in one process, not 2: set generation to 'trl' or")
    assert second[0] == "PeerFailedError"  # which the command prints in the main process alone
    assert not (folder / "refused" / "run").exists()


def test_what_cannot_run_in_several_processes_is_refused(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "count", lambda: 4)

    def refused(settings: Any, **more: Any) -> str:
        plan = TrainingPlan(settings=settings, model="m", budget=Budget(steps=1), **more)
        with pytest.raises(UserError) as error:
            train.__globals__["_train"](plan, tasks, None, tmp_path / "run", None, None)
        return str(error.value)

    assert refused(PPOSettings()).startswith("ppo runs in one process, not 4: launch it without `accelerate launch`")
    assert refused(ExpertIterationSettings(sampling=Sampling(1.0, 2))).startswith("expert-iteration runs in one")
    assert "of which 4 processes cannot have equal shares: give a multiple of 4" in refused(SFTSettings(batch_size=6))
    assert refused(SFTSettings(), agent=AGENT).startswith("executing demonstrations runs in one process, not 4: write")
    assert refused(GRPO).startswith("the number of tasks per step is 2, of which 4 processes cannot have equal shares")
    assert "with generation 'shared' runs in one process" in refused(OnlineSettings(algorithm="reinforce"))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert refused(SFTSettings()).startswith("FSDP shards the model, which these trainers cannot save: launch without")
    assert not any(tmp_path.iterdir())


def test_accelerate_reads_the_configurations_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text()
    blocks = re.findall(r"```yaml\n# (\S+)\n(.*?)```", page, re.DOTALL)
    assert [name for name, _ in blocks] == ["fsdp.yaml", "zero3.yaml"]
    for name, text in blocks:
        (tmp_path / name).write_text(text)
        arguments = launch.launch_command_parser().parse_args(["--config_file", str(tmp_path / name), "my_training.py"])
        arguments, *_ = launch._validate_launch_command(arguments)
        assert (arguments.use_fsdp, arguments.use_deepspeed) == (name == "fsdp.yaml", name == "zero3.yaml")
        if arguments.use_fsdp:
            for variable, value in prepare_multi_gpu_env(arguments).items():
                monkeypatch.setenv(variable, value)
            plugin = FullyShardedDataParallelPlugin()
            assert (plugin.fsdp_version, plugin.reshard_after_forward, plugin.activation_checkpointing) == (
                2,
                True,
                True,
            )
            with pytest.raises(UserError, match="FSDP shards the model"):
                processes.check_unsharded()


@pytest.mark.parametrize(
    "settings",
    [OnlineSettings(algorithm="grpo", samples_per_prompt=6, learning_rate=1e-3), SFTSettings(frozen=0.5, batch_size=2)],
    ids=lambda settings: settings.algorithm,
)
def test_gradient_checkpointing_changes_no_number(
    undecided_folder: Path, tasks: list[Task], scorer: Any, tmp_path: Path, settings: Any
) -> None:
    weights = []
    for is_on in (False, True):
        plan = TrainingPlan(
            settings=settings, model=str(undecided_folder), budget=Budget(steps=2), gradient_checkpointing=is_on
        )
        checkpoint = train(plan, tasks, scorer, tmp_path / str(is_on))
        weights.append((checkpoint / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != (undecided_folder / "model.safetensors").read_bytes()
    assert not load_model(str(checkpoint), device="cpu").model.is_activation_checkpointing
