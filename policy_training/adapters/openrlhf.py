"""OpenRLHF: a reward function in a file, for `--reward.remote_url FILE.py`.

    python -c "import regrade.policy_training.adapters.openrlhf as m; print(m.__file__)"   # the file to name
    REGRADE_TASKS=tasks.jsonl REGRADE_REWARD=my_rewards.py:fix_bug  # in the environment of the workers

The label of a prompt is the id of its task.

Unscored: OpenRLHF swallows every error of the function, and then stops, as it has no reward. So an answer that stays
unscored after all retries is an `UnscoredError`: no number of it enters the training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from regrade.datasets.errors import UserError
from regrade.policy_training.adapters.configured import configured_verdicts, numbers_for_metrics, value_of
from regrade.policy_training.adapters.verdicts import Answer
from regrade.policy_training.adapters.versions import warn_if_untested

PROMPT_ENDS = 200, 50
"""Characters at the end of a prompt that find it in a query whose beginning was cut off: as many as are there."""
_REVERSED_END = re.compile(r"(?:\s*(?:>[|｜][^|｜<>\n]+[|｜]<|>s/<|>soe<|>nrut_fo_dne<))+")
"""OpenRLHF decodes an answer with its special tokens, of which the last ones end the turn. Only the tokenizer knows
which texts these are, and OpenRLHF passes no tokenizer to a reward function: so the forms that tokenizers use are
listed (`<|im_end|>`, DeepSeek's with wide bars, `</s>`, ...), read backwards, so that the time is linear. Another one
stays in the answer, behind the patch."""


def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """The rewards of answers, and the means of their components.

    Args:
        queries: prompt and answer as one text each.
        labels: ids of the tasks.

    Returns:
        `rewards` and `scores`, a list each, and `extra_logs`.

    Raises:
        UserError: a task is unknown, or a query does not contain its prompt.
        UnscoredError: see the module.
    """
    warn_if_untested("openrlhf")
    verdicts = configured_verdicts()
    answers = [
        Answer(label, text=answer_in(query, prompt))
        for query, prompt, label in zip(queries, prompts, labels, strict=True)
    ]
    judged = verdicts.of(answers)
    values = [value_of(verdict, answer.task_id) for verdict, answer in zip(judged, answers, strict=True)]
    rows = [numbers_for_metrics(verdict, verdicts.component_names) for verdict in judged]
    logs = {name: sum(row[name] for row in rows) / len(rows) for name in verdicts.component_names} if rows else {}
    return {"rewards": values, "scores": values, "extra_logs": logs}


def answer_in(query: str, prompt: str) -> str:
    """The answer in a query: what follows the prompt, without the special tokens at its end.

    A prompt that was cut from the left is found by its end.

    Raises:
        UserError: the query does not contain the prompt, so what is the answer is unknown.
    """
    for known in (prompt, *(prompt[-length:] for length in PROMPT_ENDS)):
        start = query.find(known)
        if start >= 0 and (known == prompt or start <= len(prompt)):
            answer = query[start + len(known) :]
            end = _REVERSED_END.match(answer[::-1])
            return answer[: len(answer) - end.end()] if end else answer
    raise UserError(
        f"a query does not contain its prompt, which ends with {prompt[-80:]!r}: send the prompt with the answer"
    )
