"""Agent Lightning: its server takes the event, and what its trainer reads of a rollout without one."""

from pathlib import Path

import agentlightning
from agentlightning.schemas import EventCreate, RewardData
from agentlightning.server.app import create_app
from fastapi.testclient import TestClient
from omegaconf import OmegaConf
from shared import FIX, LOST, refused, report, values

from regrade.policy_training.adapters.agentlightning import reward_event
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer

expected = values()
fixed, lost = configured_verdicts().of([Answer("second", text=text) for text in (FIX, LOST)])
event = reward_event(fixed, "second")
assert RewardData.model_validate(EventCreate.model_validate(event).data).value == expected["fix"]
settings = OmegaConf.load(Path(agentlightning.__file__).parent / "config" / "server.yaml")
with TestClient(create_app(settings)) as client:
    for name in ("fixed", "lost"):
        assert client.post("/api/rollouts", json=[{"input": "second", "rollout_id": name}]).status_code == 201
        client.patch(f"/api/rollouts/{name}", json={"status": {"state": "running"}}).raise_for_status()
    client.post("/api/rollouts/fixed/attempt/0/events", json=event).raise_for_status()
    client.patch("/api/rollouts/fixed", json={"status": {"state": "succeeded"}}).raise_for_status()
    stored = client.get("/api/rollouts/fixed/events").json()
    assert [each["data"]["value"] for each in stored if each["event_type"] == "reward"] == [expected["fix"]]
    assert stored[0]["data"]["components"]["resolved"] == 1.0
    failed = {"status": {"state": "failed", "error_message": refused(lambda: reward_event(lost, "second"))}}
    client.patch("/api/rollouts/lost", json=failed).raise_for_status()
    assert client.get("/api/rollouts/lost/events").json() == []
    states = {each["rollout_id"]: each["state"] for each in client.get("/api/rollouts/terminal").json()["items"]}
    assert states["lost"] == "failed", states
report(
    "agentlightning",
    "its server: rollouts, the reward event, its terminal page (in process, over its HTTP application)",
    "no event; the rollout ends as failed. A rollout that succeeds without an event would be filled in with 0",
)
