"""What is trained, and how: a plan, what contradicts it, and its record in the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from regrade.datasets.errors import UserError
from regrade.datasets.tasks import Task
from regrade.policy_training.cascade.settings import CascadeSettings
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.environments.step_rewards import StepRewards
from regrade.policy_training.environments.training_reward import (
    DEFAULT_TRAINING_REWARD,
    TrainingReward,
    load_training_reward,
)
from regrade.policy_training.policies.precision import uses_bfloat16
from regrade.policy_training.recipe_files import TrainingRecipe
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.online import check_settings
from regrade.policy_training.trainers.processes import check_alone, check_unsharded, count, share_of
from regrade.policy_training.trainers.resuming import ResumePoints
from regrade.policy_training.trainers.settings import (
    Algorithm,
    ExpertIterationSettings,
    OnlineSettings,
    PPOSettings,
    RewardModelSettings,
    SFTSettings,
    StabilitySettings,
    TrainerSettings,
)
from regrade.policy_training.trainers.tracking import Tracker, check_trackers


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train, how, and for how long."""

    settings: TrainerSettings
    """Of the algorithm; their class selects it."""
    model: str
    """`smollm2-135m`, a checkpoint's folder, or a model on the hub."""
    budget: Budget
    reward: TrainingReward = DEFAULT_TRAINING_REWARD
    """What an attempt is paid. `sft` executes nothing and reads no reward. Default: `DEFAULT_TRAINING_REWARD`."""
    seed: int = 0
    """Of all random choices. Default: 0."""
    agent: AgentFormat | None = None
    """Train an agent, which acts over several turns and sees what comes of it; its checkpoints keep the format. `sft`
    then learns demonstrations that are executed. Default: None: a policy that answers once."""
    demonstrations: Path | None = None
    """A file of `write_demonstrations` in the compact format, which `sft` learns instead of the tasks' references; an
    agent's format is then `agent`. Default: None."""
    step_rewards: StepRewards | None = None
    """What an agent's steps cost, and shaping, for `grpo`, `rloo`, `reinforce` and `ppo`. Default: None: the
    outcome alone."""
    cascade: CascadeSettings | None = None
    """Judges attempts in stages, and runs no further than their pay needs, for all algorithms that learn from their own
    attempts. Default: None: all tests that a change can reach are run."""
    save_every: int | None = None
    """Optimizer steps between checkpoints along the training, which show the course of breakage. Default: None: only
    the last one."""
    lora_rank: int | None = None
    """Rank of the adapters that alone learn, beside frozen weights; a checkpoint then holds them alone. Default: None:
    all weights learn."""
    gradient_checkpointing: bool = False
    """Compute what a layer keeps for the gradient a second time, instead of keeping it: less memory, a pass
    computes a third more, and the numbers are the same. Adapters do so anyway. Default: False."""
    resume: ResumePoints = field(default_factory=ResumePoints)
    """When a state is written, from the last of which the same plan goes on after a kill. Default: at the end of the
    step in which five minutes have passed since the last one."""
    track: Sequence[Tracker] = ()
    """Trackers that get the steps too (not a reward model's): `tensorboard`, `trackio`, `wandb`. Default: none."""

    stability: StabilitySettings | None = field(default_factory=StabilitySettings)
    """The stability guard, of all but `reward-model`. Default: its own defaults. None: nothing is watched."""
    probe_tasks: Sequence[Task] = ()
    """Held-out tasks that the guard probes, of which nothing is learned; the checkpoint has the best weights by this
    probe. Default: none: the checkpoint has the last weights, if no alarm came."""

    @classmethod
    def of(cls, recipe: TrainingRecipe) -> TrainingPlan:
        """The plan of a recipe; without an agent of its own, that of the checkpoint that it starts from.

        Raises:
            UserError: the recipe has no limit, there is no such reward, or the format of the checkpoint's agent is
                damaged.
        """
        if recipe.needs_limit and recipe.steps is None and recipe.minutes is None:
            raise UserError("no limit for the training: give `steps=`, `minutes=` or both")
        agent = recipe.agent or AgentFormat.of_checkpoint(Path(recipe.model))
        return cls(
            settings=recipe.settings,
            model=recipe.model,
            budget=Budget(recipe.steps, recipe.seconds),
            reward=DEFAULT_TRAINING_REWARD if recipe.reward is None else load_training_reward(recipe.reward),
            seed=recipe.seed,
            agent=agent if agent.limits.turns > 1 else None,
            demonstrations=recipe.demonstrations,
            step_rewards=recipe.step_rewards,
            cascade=recipe.cascade,
            save_every=recipe.save_every,
            lora_rank=recipe.lora_rank,
            gradient_checkpointing=recipe.gradient_checkpointing,
            stability=recipe.stability,
        )

    @property
    def algorithm(self) -> Algorithm:
        return self.settings.algorithm

    @property
    def learns_traces(self) -> bool:
        """Does it answer once, to learn traces that are made of its answers?"""
        return isinstance(self.settings, ExpertIterationSettings) and self.settings.lessons == "traces"

    @property
    def files(self) -> Mapping[str, str]:
        """What a checkpoint keeps beside its weights: name -> text."""
        return {} if self.agent is None else self.agent.files()


def check_plan(plan: TrainingPlan, tasks: Sequence[Task]) -> None:
    """Raises UserError if the plan contradicts itself, the tasks or the way in which it was launched."""
    if plan.demonstrations is not None and plan.algorithm != "sft":
        raise UserError(f"{plan.algorithm} learns from executed tests: leave out `demonstrations=`")
    if not tasks and plan.demonstrations is None:
        raise UserError("no tasks to train on: choose others with `tasks=` or `split=` (see `regrade tasks list`)")
    if twice := {task.id for task in tasks} & {task.id for task in plan.probe_tasks}:
        raise UserError(f"probe_tasks: {min(twice)} is trained on too: the probe needs tasks that are not")
    if plan.save_every and plan.algorithm == "reward-model":
        raise UserError("a reward model proposes no patches, so it has no breakage: leave out `save_every=`")
    if plan.agent is not None and plan.algorithm == "reward-model":
        raise UserError("a reward model scores answers of one turn: leave out `agent=`")
    if plan.step_rewards is not None and not isinstance(plan.settings, OnlineSettings | PPOSettings):
        raise UserError(
            f"{plan.algorithm} pays no steps: leave out step_rewards, or train by grpo, rloo, reinforce or ppo"
        )
    if plan.cascade is not None and isinstance(plan.settings, SFTSettings | RewardModelSettings):
        raise UserError(f"{plan.algorithm} pays no attempts of its own policy: leave out cascade")
    if isinstance(plan.settings, OnlineSettings):
        check_settings(plan.settings, plan.agent, plan.step_rewards, len(tasks))
    else:
        _check_processes(plan)
    check_unsharded()
    if plan.learns_traces and plan.agent is None:
        raise UserError("lessons is 'traces', but a policy that answers once learns its answers: give `agent=`")
    check_trackers(plan.track)


def _check_processes(plan: TrainingPlan) -> None:
    """Raises UserError if this trainer cannot run in several processes."""
    if not isinstance(plan.settings, SFTSettings):
        check_alone(plan.algorithm)
        return
    share_of(plan.settings.batch_size, "batch_size")
    if plan.agent is not None and plan.demonstrations is None:
        advice = "write them by `regrade tasks demonstrations` and give that file as demonstrations, or "
        check_alone("executing demonstrations", advice)


def configuration_of(plan: TrainingPlan, tasks: Sequence[Task]) -> dict[str, Any]:
    """All that the result depends on, for the manifest; a training goes on only with the same."""
    learned = [(task.id, task.instruction, task.digest, task.reference and task.reference.digest) for task in tasks]
    file = plan.demonstrations
    return {
        "algorithm": plan.algorithm,
        "settings": asdict(plan.settings),
        "model": plan.model,
        "reward": None if plan.algorithm == "sft" else plan.reward.to_json(),
        "budget": asdict(plan.budget),
        "seed": plan.seed,
        "demonstrations": None if file is None else str(file),
        "demonstrations_sha256": None if file is None else hashlib.sha256(file.read_bytes()).hexdigest(),
        "agent": None if plan.agent is None else asdict(plan.agent),
        "step_rewards": None if plan.step_rewards is None else asdict(plan.step_rewards),
        **({} if plan.cascade is None else {"cascade": plan.cascade.to_json()}),
        **({} if count() == 1 else {"processes": count()}),
        "save_every": plan.save_every,
        "stability": None if plan.stability is None else asdict(plan.stability),
        "probe_tasks": [task.id for task in plan.probe_tasks],
        "lora_rank": plan.lora_rank,
        "precision": "bfloat16" if uses_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "float32",
        "tasks": len(tasks),
        "tasks_sha256": hashlib.sha256(repr(learned).encode("utf-8", "surrogateescape")).hexdigest(),
    }
