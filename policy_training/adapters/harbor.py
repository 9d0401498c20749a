"""Harbor: a verifier that judges the working tree of a trial, and writes `reward.json`.

The `tests/test.sh` of a task, whose image has this package:

    python -m regrade.policy_training.adapters.harbor add-1 /app

with `REGRADE_TASKS=/tests/tasks.jsonl` and `REGRADE_REWARD=/tests/rewards.py:fix_bug` in `[verifier.env]` of
`task.toml`.

Unscored: no file, and exit code 1. Harbor then reports `RewardFileNotFoundError` for the trial, and no reward of it;
with a file it would count, whatever the exit code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.journal import write_atomically
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Verdict
from regrade.policy_training.adapters.versions import warn_if_untested
from regrade.policy_training.adapters.working_trees import verdict_of_tree

REWARD_FILE = Path("/logs/verifier/reward.json")
"""Where Harbor reads the rewards of a trial: a flat object of finite numbers."""


def write_reward(verdict: Verdict, path: Path = REWARD_FILE) -> bool:
    """Write the value as `reward`, with the components beside it. Unscored: remove the file.

    Returns:
        Whether there is a reward.
    """
    path.unlink(missing_ok=True)
    if verdict.value is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps({**verdict.components, "reward": verdict.value}))
    return True


def main(arguments: Sequence[str]) -> int:
    """Judge the tree `arguments[1]` as an answer to the task `arguments[0]`; `arguments[2]`: another file of rewards.

    Returns:
        The exit code: 0 with a reward, 1 unscored, 2 for a mistake in the input.
    """
    if len(arguments) not in (2, 3):
        print("error: give the id of the task, the folder to judge and, if it is not the usual one, the file to write")
        return 2
    path = Path(arguments[2]) if len(arguments) == 3 else REWARD_FILE
    path.unlink(missing_ok=True)
    warn_if_untested("harbor")
    try:
        verdict = verdict_of_tree(configured_verdicts(), arguments[0], Path(arguments[1]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(verdict.explanation)
    return 0 if write_reward(verdict, path) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
