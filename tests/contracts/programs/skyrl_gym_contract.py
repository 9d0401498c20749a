"""SkyRL-gym: register, make, init, step, metrics, by the package's registry."""

import skyrl_gym
from shared import BREAK, FIX, LOST, MALFORMED, refused, report, values
from skyrl_gym.metrics import default_aggregate_metrics

expected = values()
skyrl_gym.register(id="regrade", entry_point="regrade.policy_training.adapters.skyrl_gym:AnswerEnvironment")


def episode(*answers: str, turns: int = 1) -> tuple[list[dict], dict]:
    extras = {"reward_spec": {"method": "rule", "ground_truth": "second"}, "max_turns": turns}
    environment = skyrl_gym.make("regrade", env_config={}, extras=extras)
    prompt = [{"role": "user", "content": "Mend second()."}]
    assert environment.init(prompt)[0] == prompt
    steps = [environment.step(answer) for answer in answers]
    metrics = environment.get_metrics()
    environment.close()
    return steps, metrics


(fixed,), numbers = episode(FIX)
assert (fixed["reward"], fixed["done"], fixed["observations"]) == (expected["fix"], True, [])
assert numbers["resolved"] == numbers["tests"] == 1.0
(broke,), more = episode(BREAK)
assert broke["reward"] == expected["break"]
assert more["broke"] == 1.0
steps, _ = episode(MALFORMED, FIX, turns=2)
assert [step["done"] for step in steps] == [False, True]
assert "No patch could be read" in steps[0]["observations"][0]["content"]
assert steps[1]["reward"] == expected["fix"]
own = default_aggregate_metrics([numbers, more])
assert own["resolved"] == 0.5
assert refused(lambda: episode(LOST)) == "UnscoredError"
report(
    "skyrl-gym",
    "register, make, init, step (two turns), get_metrics, the package's aggregation of metrics",
    "`step` raises `UnscoredError`: no reward of the row reaches a group",
)
