"""Let a chat model work on a bug by tool calls, through any server with OpenAI's API, and judge what it hands in.

MODEL=Qwen/Qwen3-4B-Instruct-2507 python examples/chat_agent.py http://localhost:8000/v1
"""

import os
import sys
from pathlib import Path
from typing import Any

import httpx2

from regrade.evaluators import Scorer, local_task
from regrade.policy_training import ChatAnswer, EpisodeLimits, RepositoryEnvironment, run_chat_episode
from regrade.rewards import default

HERE = Path(__file__).resolve().parent


def complete(messages: Any, tools: Any) -> ChatAnswer:
    body = {"model": os.environ["MODEL"], "messages": messages, "tools": tools}
    answer = httpx2.post(f"{sys.argv[1]}/chat/completions", json=body, timeout=300).raise_for_status().json()
    return ChatAnswer(answer["choices"][0]["message"], answer["usage"]["completion_tokens"])


task = local_task(HERE / "shop", fail_to_pass=["tests/test_prices.py::test_net"])
with Scorer() as scorer:
    environment = RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=20, test_runs=5))
    episode, _ = run_chat_episode(environment, task.id, complete)
    (verdict,) = scorer.score([(task, episode.patch)], default)
for step in episode.steps:
    print(f"{step.tool}: {step.observation.splitlines()[0]}")
print(f"{episode.end}: {verdict.value}")
