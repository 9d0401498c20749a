"""OpenRLHF: its executor of one turn loads the file and calls the function. Only `utils/agent.py` is loaded."""

import asyncio
import importlib.util
import logging
import sys
import types
from importlib.metadata import files
from types import SimpleNamespace

from shared import BREAK, FIX, LOST, report, values

from regrade.policy_training.adapters import openrlhf as adapter

expected = values()
loggers = types.ModuleType("openrlhf.utils.logging_utils")
loggers.init_logger = logging.getLogger
sys.modules["openrlhf.utils.logging_utils"] = (
    loggers  # the one import of the file beside aiohttp's; its own needs torch
)
(path,) = [file.locate() for file in files("openrlhf") or [] if str(file).endswith("openrlhf/utils/agent.py")]
spec = importlib.util.spec_from_file_location("agent", path)
agent = importlib.util.module_from_spec(spec)
spec.loader.exec_module(agent)

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


good = rollout(FIX)
assert good["reward"] == good["scores"] == [expected["fix"]]
assert good["extra_logs"]["resolved"] == 1.0
assert rollout(BREAK)["reward"] == [expected["break"]]
lost = rollout(LOST)
assert lost["reward"] is None
assert lost["scores"] is None
report(
    "openrlhf",
    "its executor of one turn (the file `openrlhf/utils/agent.py`), which loads the reward's file and calls it",
    "the executor logs the error and the reward stays None, never a number; training then asks for a reward model",
)
