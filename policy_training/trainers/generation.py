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

    def play(_trainer: Any, task_ids: Sequence[str], seed: int) -> tuple[list[AgentSample], float]:
        rows = _rows_of(task_ids)
        sampling = Sampling(temperature, max(map(len, rows.values())))
        waited = policy.times.waited_seconds
        played: dict[int, AgentSample] = {}
        for sample in policy.sample([tasks[name] for name in rows], [sampling], seed):
            mine = rows[sample.rollout.task_id]
            if sample.rollout.sample < len(mine):
                played[mine[sample.rollout.sample]] = sample
        return [played[row] for row in range(len(task_ids))], policy.times.waited_seconds - waited

    return play


def turnwise_play(policy: AgentPolicy, tasks: Mapping[str, Task], temperature: float) -> Play:
    """Plays trajectories with the generation of a TRL trainer, one turn of all of them after the other."""

    def play(trainer: Any, task_ids: Sequence[str], seed: int) -> tuple[list[AgentSample], float]:
        rows = _rows_of(task_ids)
        dialogues = {
            row: dialogue
            for name, mine in rows.items()
            for row, dialogue in zip(
                mine, dialogues_of(policy, tasks[name].without_reference(), [temperature] * len(mine)), strict=True
            )
        }
        most = policy.format.max_tokens - policy.format.max_action_tokens
        began = time.perf_counter()
        episodes, waited = _in_turns(trainer, [dialogues[row] for row in range(len(task_ids))], most)
        seconds = (time.perf_counter() - began) / len(task_ids)
        samples = [
            AgentSample(dialogues[row].rollout(policy.name, rows[name].index(row), seed, seconds), episodes[row])
            for row, name in enumerate(task_ids)
        ]
        return samples, waited

    return play


def _rows_of(task_ids: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(task_ids):
        rows.setdefault(name, []).append(row)
    return rows


class _OpenTrajectory:
    """A trajectory that is being generated."""

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.tokens: list[int] = []
        self.is_action: list[bool] = []
        self.log_probs: list[float] = []

    def add(self, tokens: Sequence[int], log_probs: Sequence[float] | None, *, is_action: bool) -> None:
        self.tokens += tokens
        self.is_action += [is_action] * len(tokens)
        self.log_probs += [0.0] * len(tokens) if log_probs is None else log_probs

    def episode(self, has_log_probs: bool) -> TokenizedEpisode:
        log_probs = tuple(self.log_probs) if has_log_probs else ()
        return TokenizedEpisode(tuple(self.dialogue.prompt), tuple(self.tokens), tuple(self.is_action), log_probs)


def _in_turns(trainer: Any, dialogues: Sequence[Dialogue], most_tokens: int) -> tuple[list[TokenizedEpisode], float]:
    """The dialogues, and the seconds in which all waited for replies."""
    rows = [_OpenTrajectory(dialogue) for dialogue in dialogues]
    live, waited, has_log_probs = rows, 0.0, True
    with ThreadPoolExecutor(max(1, min(len(rows), MOST_THREADS))) as pool:
        while live:
            so_far = [[*row.dialogue.prompt, *row.tokens] for row in live]
            answers, log_probs = trainer._generate_single_turn(so_far, None, {}, 1)
            has_log_probs = log_probs is not None
            for row, answer, numbers in zip(live, answers, log_probs or [None] * len(live), strict=True):
                row.add(answer, numbers, is_action=True)
            began = time.perf_counter()
            shown = list(pool.map(_reply, live, answers))
            waited += time.perf_counter() - began
            live = list(_with_room(live, shown, most_tokens))
    return [row.episode(has_log_probs) for row in rows], waited


def _reply(row: _OpenTrajectory, answer: list[int]) -> list[int] | None:
    return row.dialogue.reply(answer)


def _with_room(
    rows: list[_OpenTrajectory], shown: list[list[int] | None], most_tokens: int
) -> Iterator[_OpenTrajectory]:
    """The rows that go on, with what they are shown."""
    for row, tokens in zip(rows, shown, strict=True):
        if tokens is not None and len(row.tokens) + len(tokens) <= most_tokens:
            row.add(tokens, None, is_action=False)
            yield row


PLAYERS: Mapping[Generation, Callable[[AgentPolicy, Mapping[str, Task], float], Play]] = {
    "shared": shared_play,
    "trl": turnwise_play,
    "vllm": turnwise_play,
}
