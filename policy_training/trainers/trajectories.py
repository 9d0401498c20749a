"""Whole trajectories in TRL's trainers: played, then trained on token by token as they were sampled.

The completion of a row is all that follows its prompt, actions and observations, by the recorded token ids: text is
never encoded again. TRL's `tool_mask` is 1 on actions and 0 on observations, so that its loss, normaliser, KL and
entropy count actions alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from regrade.datasets.rollouts import Rollout
from regrade.policy_training.environments.agent_policy import AgentSample
from regrade.policy_training.environments.step_rewards import EpisodeRewards
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.trainers.settings import Credit

Play = Callable[[Any, Sequence[str], int], Iterator[tuple[int, AgentSample]]]
"""Called with a trainer, the task ids of its rows and a seed. Yields each row's trajectory as soon as it is over."""


@dataclass
class TrajectoryBatch:
    """The trajectories of a trainer's latest batch, in the order of its rows."""

    play: Play
    credit: Credit = "trajectory"
    """Of GRPO: what an advantage belongs to."""
    times: SamplingTimes = field(default_factory=SamplingTimes)
    """Of all that was played; the player adds to it."""
    when_over: Callable[[Rollout], None] | None = None
    """Called with each attempt as soon as it is over, while others are generated."""
    latest: list[AgentSample] = field(default_factory=list)
    rewards: list[EpisodeRewards] = field(default_factory=list)
    """Of their steps. The reward function writes them."""

    def generate(self, task_ids: Sequence[str], trainer: Any) -> list[AgentSample]:
        """Play one trajectory per entry of `task_ids`, with the trainer's weights, and log the seconds it took."""
        began = time.perf_counter()
        seed = int(torch.randint(2**62, ()))  # from torch's generator, which the trainer seeds and checkpoints
        waited = self.times.waited_seconds
        played: dict[int, AgentSample] = {}
        for row, sample in self.play(trainer, task_ids, seed):
            played[row] = sample
            if self.when_over is not None:
                self.when_over(sample.rollout)
        self.latest = [played[row] for row in range(len(task_ids))]
        self.rewards = [EpisodeRewards() for _ in self.latest]
        trainer._log_metric("generation_seconds", time.perf_counter() - began)
        trainer._log_metric("waiting_seconds", self.times.waited_seconds - waited)
        return self.latest

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        """As TRL's `rollout_func`; the prompts are ids of tasks."""
        episodes = [trajectory.tokens for trajectory in self.generate(prompts, trainer)]
        has_log_probs = trainer.use_vllm and all(episode.log_probs for episode in episodes)
        return {
            "prompt_ids": [list(episode.prompt) for episode in episodes],
            "completion_ids": [list(episode.tokens) for episode in episodes],
            "logprobs": [list(episode.log_probs) for episode in episodes] if has_log_probs else None,
            "env_mask": [[int(is_action) for is_action in episode.is_action] for episode in episodes],
        }

    def mask(self, device: Any) -> Tensor:
        """(rows, tokens): 1 on actions, 0 on observations and padding."""
        return padded([[float(own) for own in each.tokens.is_action] for each in self.latest], device).long()

    def token_rewards(self, gamma: float, device: Any) -> Tensor:
        """(rows, tokens): costs and shaping of the steps, at the actions' tokens."""
        rows = []
        for trajectory, rewards in zip(self.latest, self.rewards, strict=True):
            row = [0.0] * len(trajectory.tokens.tokens)
            actions = action_spans(trajectory.tokens.is_action)
            paid = rewards.of_tokens([end - start for start, end in actions], gamma)
            for (start, end), numbers in zip(actions, paid, strict=True):
                row[start:end] = numbers
            rows.append(row)
        return padded(rows, device)

    def totals(self, device: Any) -> Tensor:
        """(rows,): the sum of each trajectory's costs."""
        return torch.tensor([rewards.total for rewards in self.rewards], device=device)

    def step_advantages(self, advantages: Tensor, group: int) -> Tensor:
        """Advantages per token, (rows, tokens), from those per trajectory, (rows,), which are centred in their groups.

        A step is judged by what came after it: the outcome, the costs from there on, and less Phi of the state that it
        began in. Its baseline is the mean of the same step over the group. A step that one attempt alone reached is
        not compared with any, so it has none.
        """
        actions = [action_spans(trajectory.tokens.is_action) for trajectory in self.latest]
        values = [
            [float(advantage) - rewards.total + rewards.to_go(step) for step in range(len(spans))]
            for advantage, rewards, spans in zip(advantages, self.rewards, actions, strict=True)
        ]
        rows = [[0.0] * len(trajectory.tokens.tokens) for trajectory in self.latest]
        for start in range(0, len(rows), group):
            members = range(start, min(start + group, len(rows)))
            for step in range(max((len(actions[row]) for row in members), default=0)):
                reached = [row for row in members if step < len(actions[row])]
                mean = sum(values[row][step] for row in reached) / len(reached)
                for row in reached:
                    first, last = actions[row][step]
                    rows[row][first:last] = [values[row][step] - mean] * (last - first)
        return padded(rows, advantages.device)


def action_spans(is_action: Sequence[bool]) -> list[tuple[int, int]]:
    """(start, end) of each action in a trajectory."""
    spans, start = [], 0
    for own, run in groupby(is_action):
        end = start + len(list(run))
        if own:
            spans.append((start, end))
        start = end
    return spans


def padded(rows: Sequence[Sequence[float]], device: Any) -> Tensor:
    """Rows of numbers as one tensor, 0 on padding."""
    width = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows], device=device)
