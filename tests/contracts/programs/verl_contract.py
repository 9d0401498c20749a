"""verl: its loader of reward functions, its reward managers, and the advantages of a group."""

import asyncio
from functools import partial

import numpy as np
import torch
from omegaconf import OmegaConf
from shared import BREAK, FIX, LOST, refused, report, values
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage
from verl.trainer.ppo.reward import load_reward_manager

MODULE = "pkg://regrade.policy_training.adapters.verl"
expected = values()


class Tokenizer:
    """A token is a character."""

    def decode(self, tokens: torch.Tensor, **_: object) -> str:
        return "".join(chr(token) for token in tokens.tolist())


def batch(answer: str) -> DataProto:
    tokens = torch.tensor([[ord(letter) for letter in answer] + [0, 0]])
    mask = torch.ones(1, 3 + tokens.shape[1], dtype=torch.long)
    mask[:, -2:] = 0
    tensors = TensorDict({"responses": tokens, "attention_mask": mask}, batch_size=[1])
    row = {
        "data_source": np.array(["regrade"], dtype=object),
        "reward_model": np.array([{"ground_truth": "second"}], dtype=object),
        "extra_info": np.array([{}], dtype=object),
    }
    return DataProto(batch=tensors, non_tensor_batch=row)


def config(**manager: object) -> OmegaConf:
    function = {"path": MODULE, "name": "compute_score", "reward_kwargs": {}}
    return OmegaConf.create({"reward": {"custom_reward_function": function, "reward_manager": manager}})


managers = {
    "naive": config(source="register", name="naive"),
    "own": config(source="importlib", name="RegradeRewardManager", module={"path": MODULE}),
}


def scored(manager: object, answer: str) -> dict:
    async def run() -> dict:
        return await manager.run_single(batch(answer))

    loop = getattr(manager, "loop", None) or asyncio.new_event_loop()
    return loop.run_until_complete(run())


for each in managers.values():
    manager = load_reward_manager(each, Tokenizer())
    fixed, broke = (scored(manager, text) for text in (FIX, BREAK))
    assert fixed["reward_score"] == expected["fix"], fixed
    assert broke["reward_score"] == expected["break"], broke
    assert fixed["reward_extra_info"]["resolved"] == 1.0
    assert fixed["reward_extra_info"].keys() == broke["reward_extra_info"].keys()
    assert refused(partial(scored, manager, LOST)) == "UnscoredError"

# What a zero in its place would have done: it moves the advantages of the group's others.
group = np.array(["g"] * 3)
mask = torch.ones(3, 1)
left, _ = compute_grpo_outcome_advantage(torch.tensor([[1.0], [0.9]]), mask[:2], group[:2])
as_zero, _ = compute_grpo_outcome_advantage(torch.tensor([[1.0], [0.9], [0.0]]), mask, group)
assert left[1].item() < 0 < as_zero[1].item()
report(
    "verl",
    "its loader of functions and managers, the managers `naive` and `RegradeRewardManager`, its GRPO advantages",
    "`run_single` raises `UnscoredError`, which stops the step; as 0, it would turn the sign of another advantage",
)
