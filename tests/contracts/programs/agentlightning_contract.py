"""Agent Lightning: its server takes the event, and what its trainer reads of a rollout without one."""

from agentlightning.schemas import EventCreate, RewardData
from agentlightning.server.app import create_app
from fastapi.testclient import TestClient
from shared import FIX, LOST, refused, report, values

from regrade.policy_training.adapters.agentlightning import reward_event
from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.adapters.verdicts import Answer

expected = values()
fixed, lost = configured_verdicts().of([Answer("second", text=text) for text in (FIX, LOST)])
event = reward_event(fixed, "second")
assert RewardData.model_validate(EventCreate.model_validate(event).data).value == expected["fix"]
with TestClient(create_app()) as client:
    for name in ("fixed", "lost"):
        assert client.post("/rollouts", json=[{"input": "second", "rollout_id": name}]).status_code == 201
        client.patch(f"/rollouts/{name}", json={"status": {"state": "running"}}).raise_for_status()
    client.post("/rollouts/fixed/attempt/0/events", json=event).raise_for_status()
    client.patch("/rollouts/fixed", json={"status": {"state": "succeeded"}}).raise_for_status()
    stored = client.get("/rollouts/fixed/events").json()
    assert [each["data"]["value"] for each in stored if each["event_type"] == "reward"] == [expected["fix"]]
    assert stored[0]["data"]["components"]["resolved"] == 1.0
    failed = {"status": {"state": "failed", "error_message": refused(lambda: reward_event(lost, "second"))}}
    client.patch("/rollouts/lost", json=failed).raise_for_status()
    assert client.get("/rollouts/lost/events").json() == []
    states = {each["rollout_id"]: each["state"] for each in client.get("/rollouts/terminal").json()["items"]}
    assert states["lost"] == "failed", states
report(
    "agentlightning",
    "its server: rollouts, the reward event, its terminal page (in process, over its HTTP application)",
    "no event; the rollout ends as failed. A rollout that succeeds without an event would be filled in with 0",
)
