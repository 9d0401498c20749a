"""SkyRL-gym: an environment in which a policy answers a task, once or until its turns are used up.

    skyrl_gym.register(
        id="regrade",
        entry_point="regrade.policy_training.adapters.skyrl_gym:AnswerEnvironment",
        kwargs={"env_config": {"tasks": "tasks.jsonl", "reward": "my_rewards.py:fix_bug"}},
    )

The id of the task is `task_id` of the row, or else `reward_spec["ground_truth"]`. With `max_turns` above 1, an answer
without a readable patch is told so, and may be repeated; the answer of the last turn counts.

Unscored: SkyRL needs a number for every step, and keeps it. So an answer that stays unscored after all retries is an
`UnscoredError`, which stops the generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skyrl_gym.envs.base_text_env import BaseTextEnv

from regrade.policy_training.adapters.configured import configured_verdicts, value_of
from regrade.policy_training.adapters.verdicts import Answer, Verdict
from regrade.policy_training.adapters.verl import task_of_row
from regrade.policy_training.adapters.versions import warn_if_untested

Messages = list[dict[str, str]]
UNREADABLE = "No patch could be read from this answer. Write it again, as SEARCH/REPLACE edits or as a unified diff."


class AnswerEnvironment(BaseTextEnv):  # type: ignore[misc]
    """SkyRL's text environment of one task."""

    def __init__(self, env_config: Mapping[str, Any] | None = None, extras: Mapping[str, Any] | None = None) -> None:
        """
        Args:
            env_config: see `configured_verdicts`.
            extras: the row: `task_id`, `reward_spec`, `max_turns`.

        Raises:
            UserError: no task is named, or it is unknown.
        """
        super().__init__()
        warn_if_untested("skyrl-gym")
        row = extras or {}
        self._verdicts = configured_verdicts(**dict(env_config or {}))
        self.task_id = task_of_row((row.get("reward_spec") or {}).get("ground_truth"), row)
        self._task = self._verdicts.task(self.task_id)
        self.max_turns = int(row.get("max_turns") or 1)
        self.turns = 0
        self._verdict: Verdict | None = None

    def init(self, prompt: Messages) -> tuple[Messages, dict[str, Any]]:
        """The prompt as it is."""
        return prompt, {"task_id": self.task_id}

    def step(self, action: str) -> dict[str, Any]:
        """Judge an answer.

        Raises:
            UnscoredError: see the module.
        """
        self.turns += 1
        answer = Answer(self.task_id, text=action)
        if self.turns < self.max_turns and self._verdicts.is_malformed(answer):
            told = [{"role": "user", "content": UNREADABLE}]
            return {"observations": told, "reward": 0.0, "done": False, "metadata": {"task_id": self.task_id}}
        (self._verdict,) = self._verdicts.of([answer])
        reward = value_of(self._verdict, self.task_id)
        metadata = {"cause": self._verdict.cause, "flags": list(self._verdict.flags)}
        return {"observations": [], "reward": reward, "done": True, "metadata": metadata}

    def get_metrics(self) -> dict[str, float]:
        """The components of the verdict; empty before it."""
        if self._verdict is None or not self._verdict.is_scored:
            return {}
        return dict(self._verdict.components)

    @staticmethod
    def aggregate_metrics(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Means over the episodes to which each component applies."""
        names = dict.fromkeys(name for each in metrics for name in each)
        known = {name: [each[name] for each in metrics if name in each] for name in names}
        return {name: sum(values) / len(values) for name, values in known.items()}

    def close(self) -> None:
        """Nothing: the scorer belongs to the process."""
