"""slime: a custom reward model, for `--custom-rm-path regrade.policy_training.adapters.slime.reward`.

Written to slime's documented form; not tested with it, as it has no release.

`REGRADE_TASKS` and `REGRADE_REWARD` name the tasks and the reward; the label of a sample is the id of its task.

Unscored: an `UnscoredError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regrade.policy_training.adapters.configured import configured_verdicts, value_of
from regrade.policy_training.adapters.verdicts import Answer


async def reward(args: Any, sample: Any, **_: Any) -> float | list[float]:
    """The value of a sample's response; of a list of samples, which slime's batched variant passes, a list.

    Raises:
        UserError: a task is unknown.
        UnscoredError: see the module.
    """
    del args
    if not isinstance(sample, Sequence):
        answer = Answer(sample.label, text=sample.response)
        return value_of(await configured_verdicts().of_one(answer), answer.task_id)
    verdicts = configured_verdicts()
    answers = [Answer(each.label, text=each.response) for each in sample]
    judged = await verdicts.of_many(answers)
    return [value_of(verdict, answer.task_id) for verdict, answer in zip(judged, answers, strict=True)]
