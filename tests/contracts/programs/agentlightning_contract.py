"""Agent Lightning: its server takes the event, and its trainer's manager reads the rollouts over HTTP."""

import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import agentlightning
import httpx
import uvicorn
from agentlightning.schemas import EventCreate, RewardData
from agentlightning.server.app import create_app
from agentlightning.verl.agl_rollout_manager import AglRolloutManager, CompletedRollout, EnqueuedRollout
from omegaconf import OmegaConf
from shared import BREAK, FIX, LOST, free_port, refused, report, values

from regrade.policy_training.adapters.agentlightning import reward_event, scored_groups
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer

expected = values()
fixed, broke, lost = configured_verdicts().of([Answer("second", text=text) for text in (FIX, BREAK, LOST)])
event = reward_event(fixed, "second")
assert RewardData.model_validate(EventCreate.model_validate(event).data).value == expected["fix"]
settings = OmegaConf.load(Path(agentlightning.__file__).parent / "config" / "server.yaml")
address = f"http://127.0.0.1:{(port := free_port())}"
server = uvicorn.Server(uvicorn.Config(create_app(settings), host="127.0.0.1", port=port, log_level="warning"))
threading.Thread(target=server.run, daemon=True).start()
while not server.started:
    time.sleep(0.05)
client = httpx.Client(base_url=address, timeout=60)
TURN = {"http_status": 200, "request": {}, "response": {"prompt_token_ids": [1], "choices": [{"token_ids": [2, 3]}]}}


def rollout(name: str, reward: dict | None, end: dict) -> None:
    """One model call, the reward's event if there is one, and the end."""
    assert client.post("/api/rollouts", json=[{"input": "second", "rollout_id": name}]).status_code == 201
    client.patch(f"/api/rollouts/{name}", json={"status": {"state": "running"}}).raise_for_status()
    for each in filter(None, ({"event_type": "model_request", "data": TURN}, reward)):
        client.post(f"/api/rollouts/{name}/attempt/0/events", json=each).raise_for_status()
    client.patch(f"/api/rollouts/{name}", json={"status": end}).raise_for_status()


rollout("fixed", event, {"state": "succeeded"})
rollout("broke", reward_event(broke, "second"), {"state": "succeeded"})
reason = refused(lambda: reward_event(lost, "second"))
rollout("lost", None, {"state": "failed", "error_message": reason})
rollout("other", event, {"state": "succeeded"})
stored = client.get("/api/rollouts/fixed/events").json()
(rewarded,) = (each["data"] for each in stored if each["event_type"] == "reward")
assert (rewarded["value"], rewarded["components"]["resolved"]) == (expected["fix"], 1.0)

manager = AglRolloutManager(agl_base_url=address, agl_key="", model="m", step=0)
groups = {"fixed": "a", "broke": "a", "lost": "a", "other": "b"}


def completed(place: int, name: str) -> CompletedRollout:
    known = EnqueuedRollout(data_id=groups[name], rollout_id=name, step=0, sample_idx_in_step=place, enqueue_time=0.0)
    return manager._build_completed_rollout(known, manager._get_rollout(name))


read = [completed(place, name) for place, name in enumerate(groups)]
assert [each.final_reward for each in read] == [expected["fix"], expected["break"], None, expected["fix"]]
assert read[2].rollout_state == "failed"
assert read[2].triplets, "its tokens would be trained on"

# What the trainer makes of the missing reward; building its batch needs verl and torch, reading the reward neither.
for name in ("torch", "tensordict", "verl"):
    sys.modules.setdefault(name, MagicMock(spec=ModuleType(name), TensorDict=None, DataProto=None))
from agentlightning.verl.rollout_adapter import RolloutAdapter  # noqa: E402

trainer = RolloutAdapter(max_prompt_length=8, max_response_length=8, device=None, pad_token_id=0)
assert trainer._fillna_reward(read[2]) == 0.0
assert [each.rollout_id for each in scored_groups(read)] == ["other"]
server.should_exit = True
report(
    "agentlightning",
    "its server over HTTP, and its trainer's manager, which reads four rollouts in two groups",
    "no event; the trainer would fill a failed rollout in with 0, so `scored_groups` drops its group: no advantages",
)
