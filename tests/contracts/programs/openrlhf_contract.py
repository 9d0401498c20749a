"""OpenRLHF: its executor of one turn calls the function, and its maker of experience computes the advantages.

The package's `__init__` files import DeepSpeed, flash-attn and vLLM, which need a GPU. They are not run: the modules are
imported from their folders, and only what these import of DeepSpeed and of Ray's actors is absent.
"""

import asyncio
import sys
from importlib.metadata import files
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import torch
from shared import BREAK, FIX, LOST, report, values

from regrade.policy_training.adapters import openrlhf as adapter

expected = values()
(agent_file,) = [file.locate() for file in files("openrlhf") or [] if str(file).endswith("openrlhf/utils/agent.py")]
for name in ("openrlhf", "openrlhf.models", "openrlhf.trainer", "openrlhf.trainer.ppo_utils", "openrlhf.utils"):
    package = ModuleType(name)
    package.__path__ = [str(agent_file.parents[1].joinpath(*name.split(".")[1:]))]
    sys.modules[name] = package
sys.modules["deepspeed"] = MagicMock(spec=ModuleType("deepspeed"))
sys.modules["openrlhf.trainer.ray.launcher"] = MagicMock(RayActorGroup=None)
sys.modules["openrlhf.trainer.ray"] = ModuleType("openrlhf.trainer.ray")

from openrlhf.trainer.ppo_utils.experience import Experience  # noqa: E402
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker  # noqa: E402
from openrlhf.utils import agent  # noqa: E402

PROMPT = "<|im_start|>user\nMend second().<|im_end|>\n<|im_start|>assistant\n"


class Ids(list):
    def tolist(self) -> list[int]:
        return list(self)


class Tokenizer:
    """A token is a character."""

    def __call__(self, text: str, **_: object) -> dict:
        return {"input_ids": [Ids(map(ord, text))]}

    def decode(self, tokens: list[int], **_: object) -> str:
        return "".join(map(chr, tokens))


class Engine:
    def __init__(self, answer: str) -> None:
        self.answer = answer

    async def generate(self, *_: object, **__: object) -> SimpleNamespace:
        tokens = [ord(letter) for letter in self.answer + "<|im_end|>"]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=tokens, finish_reason="stop", logprobs=None)])


def rollout(answer: str) -> dict:
    executor = agent.SingleTurnAgentExecutor(adapter.__file__)
    sampling = SimpleNamespace(max_tokens=4000, logprobs=None)
    return asyncio.run(executor.execute(PROMPT, "second", sampling, 8000, Tokenizer(), Engine(answer)))


good, bad = rollout(FIX), rollout(BREAK)
assert good["reward"] == good["scores"] == [expected["fix"]]
assert good["extra_logs"]["resolved"] == 1.0
assert bad["reward"] == [expected["break"]]
lost = rollout(LOST)
assert lost["reward"] is None
assert lost["scores"] is None


def sample(response: dict) -> Experience:
    """As `SamplesGenerator._process_response_into_experience`, whose module needs vLLM, makes it."""
    reward = response["reward"]
    return Experience(
        sequences=torch.ones(1, 3, dtype=torch.long),
        attention_mask=torch.ones(1, 3, dtype=torch.long),
        action_mask=torch.ones(1, 2),
        kl=torch.zeros(1, 2),
        rewards=None if reward is None else torch.tensor(reward),
    )


strategy = SimpleNamespace(
    args=SimpleNamespace(
        rollout=SimpleNamespace(n_samples_per_prompt=2, micro_batch_size=1),
        train=SimpleNamespace(dynamic_batch_enable=False),
        reward=SimpleNamespace(clip_range=None),
        ds=SimpleNamespace(ring_attn_size=1, tensor_parallel_size=1),
        algo=SimpleNamespace(advantage=SimpleNamespace(estimator="group_norm", gamma=1.0)),
    )
)
maker = RemoteExperienceMaker(
    actor_model_group=None,
    critic_model_group=None,
    reward_model_group=None,
    initial_model_group=None,
    kl_controller=SimpleNamespace(value=0.0),
    strategy=strategy,
    tokenizer=SimpleNamespace(pad_token_id=0),
)


def advantages(*responses: dict) -> list[float]:
    """Those of one group; a sample's are equal for all of its tokens."""
    made = maker.compute_advantages_and_returns(maker.split_rollout_samples([sample(each) for each in responses]))
    return [round(experience.advantages[0, 0].item(), 3) for experience in made]


def stopped(call: object) -> str:
    try:
        result = call()
    except (ValueError, AttributeError) as error:
        return type(error).__name__
    raise AssertionError(f"the step goes on with {result!r}")


assert advantages(good, bad) == [0.707, -0.707]
stops = {stopped(lambda: advantages(good, lost)), stopped(lambda: advantages(lost, good))}
import ray  # noqa: E402

ray.put = lambda value: value  # nothing is sent to an actor: the step stops before
samples = maker.split_rollout_samples([sample(lost), sample(good)])
assert stopped(lambda: maker.make_experience(samples)) == "ValueError"
report(
    "openrlhf",
    "its executor of one turn, which loads the reward's file, and its maker of experience: GRPO advantages on a CPU",
    f"the reward stays None, no number, and stops the step (`ValueError` or `{min(stops)}`): no advantages",
)
