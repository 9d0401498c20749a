"""How an online trainer generates: by Regrade's sampler, by TRL's own generation, or by vLLM.

`shared` runs each prompt once, keeps the caches of a trajectory over its turns, and executes the tests of some while it
generates others (`policies/dialogues.py`). `trl` and `vllm` use TRL's trainers as they are: a trajectory then advances
in turns, all of a batch together, and what was said before is encoded again in each turn (vLLM caches prefixes).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from regrade.datasets.errors import UserError
from regrade.datasets.rollouts import Sampling
from regrade.datasets.tasks import Task
from regrade.policy_training.environments.agent_policy import AgentPolicy, AgentSample, dialogues_of
from regrade.policy_training.policies.dialogues import MOST_THREADS, Dialogue
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.transcripts import TokenizedEpisode
from regrade.policy_training.trainers.settings import Generation
from regrade.policy_training.trainers.trajectories import Play


def check_generation(generation: Generation) -> None:
    """Raises UserError if this machine cannot generate so."""
    if generation != "vllm":
        return
    if importlib.util.find_spec("vllm") is None:
        raise UserError("generation is 'vllm', and vllm is not installed: install it, or set generation to 'shared'")
    if not torch.cuda.is_available():
        raise UserError("generation is 'vllm', and this machine has no GPU for it: set generation to 'shared'")


def shared_play(policy: AgentPolicy, tasks: Mapping[str, Task], temperature: float) -> Play:
    """Plays trajectories with Regrade's sampler."""

    def play(_trainer: Any, task_ids: Sequence[str], seed: int) -> Iterator[tuple[int, AgentSample]]:
        rows = _rows_of(task_ids)
        sampling = Sampling(temperature, max(map(len, rows.values())))
        for sample in policy.sample([tasks[name] for name in rows], [sampling], seed):
            mine = rows[sample.rollout.task_id]
            if sample.rollout.sample < len(mine):
                yield mine[sample.rollout.sample], sample

    return play


def turnwise_play(policy: AgentPolicy, tasks: Mapping[str, Task], temperature: float) -> Play:
    """Plays trajectories with the generation of a TRL trainer, one turn of all of them after the other."""

    def play(trainer: Any, task_ids: Sequence[str], seed: int) -> Iterator[tuple[int, AgentSample]]:
        rows = _rows_of(task_ids)
        dialogues = {
            row: dialogue
            for name, mine in rows.items()
            for row, dialogue in zip(
                mine, dialogues_of(policy, tasks[name].without_reference(), [temperature] * len(mine)), strict=True
            )
        }
        most = policy.format.max_tokens - policy.format.max_action_tokens
        opened = [_OpenTrajectory(row, dialogues[row]) for row in range(len(task_ids))]
        began = time.perf_counter()
        for over in _in_turns(trainer, opened, most, policy.times):
            sample, seconds = rows[task_ids[over.row]].index(over.row), time.perf_counter() - began
            yield over.row, AgentSample(dialogues[over.row].rollout(policy.name, sample, seed, seconds), over.episode())
            began = time.perf_counter()

    return play


def _rows_of(task_ids: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(task_ids):
        rows.setdefault(name, []).append(row)
    return rows


class _OpenTrajectory:
    """A trajectory that is being generated."""

    def __init__(self, row: int, dialogue: Dialogue) -> None:
        self.row = row
        self.dialogue = dialogue
        self.tokens: list[int] = []
        self.is_action: list[bool] = []
        self.log_probs: list[float] = []
        self.has_log_probs = True

    def add(self, tokens: Sequence[int], log_probs: Sequence[float] | None, *, is_action: bool) -> None:
        self.tokens += tokens
        self.is_action += [is_action] * len(tokens)
        self.log_probs += [0.0] * len(tokens) if log_probs is None else log_probs
        self.has_log_probs &= not is_action or log_probs is not None

    def episode(self) -> TokenizedEpisode:
        log_probs = tuple(self.log_probs) if self.has_log_probs else ()
        return TokenizedEpisode(tuple(self.dialogue.prompt), tuple(self.tokens), tuple(self.is_action), log_probs)


def _in_turns(
    trainer: Any, live: Sequence[_OpenTrajectory], most_tokens: int, times: SamplingTimes
) -> Iterator[_OpenTrajectory]:
    """Yields the trajectories as they end."""
    pool = ThreadPoolExecutor(max(1, min(len(live), MOST_THREADS)), thread_name_prefix="regrade-reply")
    try:
        while live:
            so_far = [[*each.dialogue.prompt, *each.tokens] for each in live]
            answers, log_probs = trainer._generate_single_turn(so_far, None, {}, 1)
            for each, answer, numbers in zip(live, answers, log_probs or [None] * len(live), strict=True):
                each.add(answer, numbers, is_action=True)
            began = time.perf_counter()
            shown = list(pool.map(_reply, live, answers))
            times.waited_seconds += time.perf_counter() - began
            going_on = []
            for each, tokens in zip(live, shown, strict=True):
                if tokens is None or len(each.tokens) + len(tokens) > most_tokens:
                    yield each
                else:
                    each.add(tokens, None, is_action=False)
                    going_on.append(each)
            live = going_on
    finally:
        pool.shutdown(cancel_futures=True)


def _reply(trajectory: _OpenTrajectory, answer: list[int]) -> list[int] | None:
    return trajectory.dialogue.reply(answer)


PLAYERS: Mapping[Generation, Callable[[AgentPolicy, Mapping[str, Task], float], Play]] = {
    "shared": shared_play,
    "trl": turnwise_play,
    "vllm": turnwise_play,
}
