"""Compose a reward, check that it is fit for training, and audit what it pays for.

python examples/compose_a_reward.py
"""

from pathlib import Path

from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Rollout
from regrade.evaluators import Scorer, audit, evaluate, local_task
from regrade.rewards import Diff, Score, builds, resolved, reward, style, tests, untampered
from regrade.rewards.conformance import check_reward

HERE = Path(__file__).resolve().parent


@reward
def few_lines(diff: Diff) -> Score:
    return Score(1 / (1 + diff.changed_lines), why=f"lines changed: {diff.changed_lines}")


quality = (0.5 * style + 0.5 * few_lines).named("quality")
fix_bug = (0.7 * tests + 0.3 * quality.only_if(resolved)).only_if(builds, untampered).named("fix_bug")
print("fit for training:", not check_reward(fix_bug, examples=20))

task = local_task(HERE / "shop", fail_to_pass=["tests/test_prices.py::test_net"])
patches = [Patch((HERE / "patches" / f"{name}.diff").read_text("utf-8")) for name in ("fix", "bold")]
attempts = [
    Rollout(task_id=task.id, policy="mine", temperature=1.0, sample=sample, seed=0, patch=patch)
    for sample, patch in enumerate([*patches, Patch("")])
]
with Scorer() as scorer:
    rows = evaluate(attempts, [task], scorer, fix_bug)
print(rows[["sample", "reward", "clean_fix", "broke"]].to_string(index=False))
for part in audit(rows.to_dict("records")).parts:
    print(f"{part.name}: {part.share:.0%} of the reward's variance within the group")
