"""ART: its trajectory group of rollouts, one of which cannot be scored."""

import asyncio

import art
from shared import BREAK, DAEMON, FIX, LOST, report, values

from regrade.policy_training.adapters.art import rewarded
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer

expected = values()
verdicts = configured_verdicts()


async def rollout(answer: str) -> art.Trajectory:
    messages = [{"role": "user", "content": "Mend second()."}, {"role": "assistant", "content": answer}]
    trajectory = art.Trajectory(messages_and_choices=messages, reward=0.0)
    return await rewarded(trajectory, verdicts, Answer("second", text=answer))


async def group() -> art.TrajectoryGroup:
    made = await asyncio.gather(*(rollout(answer) for answer in (FIX, BREAK, LOST)), return_exceptions=True)
    return art.TrajectoryGroup(made)


made = asyncio.run(group())
assert [each.reward for each in made.trajectories] == [expected["fix"], expected["break"]]
assert made.trajectories[0].metrics["resolved"] == 1.0
# Its trainer's baseline is the mean over the iteration (`preprocessing/tokenize.py`, which needs torch).
assert [each.reward for each in made] == [expected["fix"], expected["break"]]
(failure,) = made.exceptions
assert DAEMON in failure.message, failure
report(
    "openpipe-art",
    "`Trajectory` and `TrajectoryGroup` of three rollouts",
    "an exception of the group: it is no member of what the baseline is the mean of; the two others are",
)
