"""verl: a reward function for `reward.custom_reward_function`, and a reward manager that scores without blocking.

    reward.custom_reward_function.path=pkg://regrade.policy_training.adapters.verl
    reward.custom_reward_function.name=compute_score
    +reward.custom_reward_function.reward_kwargs.tasks=tasks.jsonl
    +reward.custom_reward_function.reward_kwargs.reward=my_rewards.py:fix_bug

The id of the task is `extra_info["task_id"]`, or else the ground truth.

Unscored: verl has no such value, and one None removes the rewards of its whole batch. So an answer that stays unscored
after all retries is an `UnscoredError`, which stops the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.configured import configured_verdicts, numbers_for_metrics, value_of
from regrade.policy_training.adapters.verdicts import Answer, Verdict
from regrade.policy_training.adapters.versions import warn_if_untested

VERL_OWN = ("reward_router_address", "reward_model_tokenizer")
"""Keywords that verl adds for reward models of its own."""


async def compute_score(
    data_source: str = "",
    solution_str: str = "",
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    **settings: Any,
) -> dict[str, float]:
    """`score`, and the components under the same keys for every answer (NaN: it does not apply).

    Args:
        settings: `reward_kwargs`, see `configured_verdicts`.

    Raises:
        UserError: no task is named, or it is unknown.
        UnscoredError: see the module.
    """
    del data_source
    warn_if_untested("verl")
    task_id = task_of_row(ground_truth, extra_info)
    verdicts = configured_verdicts(**{name: value for name, value in settings.items() if name not in VERL_OWN})
    verdict = await verdicts.of_one(Answer(task_id, text=solution_str))
    return {"score": value_of(verdict, task_id), **numbers_for_metrics(verdict, verdicts.component_names)}


def compute_score_blocking(**row: Any) -> dict[str, float]:
    """`compute_score` for verl's reward manager `remote`, which refuses an async function."""
    import asyncio

    return asyncio.run(compute_score(**row))


def task_of_row(ground_truth: Any, extra_info: Mapping[str, Any] | None) -> str:
    """The id of the task of a row of the data set.

    Raises:
        UserError: it names none.
    """
    named = (extra_info or {}).get("task_id") or ground_truth
    if not isinstance(named, str) or not named:
        raise UserError(
            f"a row of the data set names no task: extra_info has no 'task_id', and ground_truth is {named!r}; "
            "write the id of its task into one of them"
        )
    return named


class RegradeRewardManager:
    """`reward.reward_manager={source: importlib, name: RegradeRewardManager, module: {path: pkg://...adapters.verl}}`.

    It scores the patch where the agent loop puts one into `tool_extra_fields` as `patch`, and else the decoded answer.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any = None, **_of_verl: Any) -> None:
        """`compute_score`: ignored; the settings come from `reward.custom_reward_function.reward_kwargs`, or the
        environment."""
        del compute_score
        warn_if_untested("verl")
        function = config.reward.get("custom_reward_function") or {}
        self._verdicts = configured_verdicts(**dict(function.get("reward_kwargs") or {}))
        self._tokenizer = tokenizer

    async def run_single(self, data: Any) -> dict[str, Any]:
        """`reward_score` and `reward_extra_info` of the last sequence in a `DataProto`.

        Raises:
            UserError: no task is named, or it is unknown.
            UnscoredError: see the module.
        """
        item = data[-1]
        row = item.non_tensor_batch
        task_id = task_of_row((row.get("reward_model") or {}).get("ground_truth"), row.get("extra_info"))
        patch = (row.get("tool_extra_fields") or {}).get("patch")
        answer = Answer(task_id, text=self._answer(item)) if patch is None else Answer(task_id, patch=patch)
        verdict: Verdict = await self._verdicts.of_one(answer)
        score = value_of(verdict, task_id)
        numbers = numbers_for_metrics(verdict, self._verdicts.component_names)
        return {"reward_score": score, "reward_extra_info": {"score": score, **numbers}}

    def _answer(self, item: Any) -> str:
        tokens = item.batch["responses"]
        length = int(item.batch["attention_mask"][-tokens.shape[-1] :].sum())
        text: str = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return text
