"""The protocols of trainers: what each gets for a scored answer, and for one without a value."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from regrade.datasets.errors import UserError
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.adapters.openrlhf import answer_in
from regrade.policy_training.adapters.verdicts import Verdicts
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.settings import ServerSettings
from regrade.rewards import Diff, Score, reward
from tests.policy_training.serving.conftest import FIX, HTTP, serving

EDITS = "shop.py\n<<<<<<< SEARCH\n    return sum(prices) + 1\n=======\n    return sum(prices)\n>>>>>>> REPLACE"
TWO_FILES = Patch.between({}, {"a.py": "a = 1\n", "b.py": "b = 1\n"}).text
PROMPT = "Mend total.<|im_end|>\n<|im_start|>assistant\n"
GYM = {
    "responses_create_params": {"input": [{"role": "user", "content": "Mend total."}]},
    "response": {
        "id": "r",
        "output": [
            {"type": "reasoning", "summary": []},
            {"type": "message", "content": [{"type": "output_text", "text": "I see."}]},
            {"type": "function_call", "name": "x", "arguments": "{}", "call_id": "1"},
            {"type": "message", "content": [{"type": "output_text", "text": EDITS, "annotations": []}]},
        ],
    },
    "verifier_metadata": {"task_id": "shop", "more": [1, None]},
}


@reward
def by_size(diff: Diff) -> Score:
    """Some of its answers have no value, and some make it fail."""
    if diff.changed_lines == 0:
        return Score.unscored("there is nothing to measure")
    if len(diff.files) > 1:
        raise ZeroDivisionError("a mistake in the reward")
    return Score(1 / (1 + diff.changed_lines))


@pytest.fixture(scope="module")
def partial_server(task: Task, scorer: Scorer) -> Iterator[RewardServer]:
    """A server whose reward has no value for the empty patch, and fails for one of two files."""
    with serving(Verdicts([task], scorer, by_size), ServerSettings(port=0)) as server:
        yield server


def openrlhf(*answers: str) -> dict[str, Any]:
    return {
        "query": [PROMPT + answer + "<|im_end|>" for answer in answers],
        "prompts": [PROMPT] * len(answers),
        "labels": ["shop", json.dumps({"task_id": "shop"})][: len(answers)],
    }


def test_openrlhf_gets_lists_of_numbers(server: RewardServer) -> None:
    response = HTTP.post(f"{server.url}/openrlhf", json=openrlhf(EDITS, "I give up."))
    assert response.status_code == 200, response.text
    assert response.json()["rewards"] == response.json()["scores"] == [1.0, 0.0]
    assert response.json()["extra_logs"]["malformed"] == [0.0, 1.0]
    assert {len(values) for values in response.json()["extra_logs"].values()} == {2}


def test_openrlhf_and_slime_get_no_number_for_an_answer_without_value(partial_server: RewardServer) -> None:
    for path, body in {
        "openrlhf": {**openrlhf("--- a/shop.py\n+++ b/shop.py\n"), "labels": ["shop"]},
        "slime": {"prompt": PROMPT, "response": "--- a/shop.py\n+++ b/shop.py\n", "label": "shop"},
    }.items():
        response = HTTP.post(f"{partial_server.url}/{path}", json=body)
        assert (response.status_code, response.headers["retry-after"]) == (503, "10"), response.text
        assert "unscored" in response.json()["detail"]
        assert "nothing to measure" in response.json()["detail"]


def test_an_error_of_the_reward_is_an_error_and_no_number(partial_server: RewardServer) -> None:
    slime = {"prompt": PROMPT, "response": TWO_FILES, "label": {"task_id": "shop"}}
    response = HTTP.post(f"{partial_server.url}/slime", json=slime)
    assert response.status_code == 500
    assert "a mistake in the reward" in response.json()["detail"]
    answers = [{"task_id": "shop", "patch": patch} for patch in (TWO_FILES, FIX, "")]
    verdicts = HTTP.post(f"{partial_server.url}/score", json={"answers": answers}).json()["verdicts"]
    assert [each["status"] for each in verdicts] == ["failed", "scored", "unscored"]
    assert [each["value"] for each in verdicts] == [None, pytest.approx(1 / 3), None]
    assert ["a mistake in the reward" in verdicts[0]["cause"], verdicts[2]["components"]] == [True, {}]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("openrlhf", {**openrlhf(EDITS), "labels": ["no such task"]}, 404),
        ("openrlhf", {**openrlhf(EDITS), "labels": [7]}, 422),
        ("openrlhf", {**openrlhf(EDITS), "prompts": []}, 422),
        ("openrlhf", {**openrlhf(EDITS), "prompts": ["another prompt"]}, 422),
        ("slime", {"response": EDITS, "label": {"id": "shop"}}, 422),
        ("slime", {"prompt": PROMPT, "label": "shop"}, 422),
        ("verify", {**GYM, "verifier_metadata": {}}, 422),
        ("verify", {**GYM, "verifier_metadata": {"task_id": "no such task"}}, 404),
        ("verify", {"response": {}, "task_id": "shop"}, 422),
        ("reset", {"task_id": "no such task"}, 404),
        ("step", {"action": {"patch": FIX}, "episode_id": "no such episode"}, 404),
        ("step", {"action": {"patch": FIX, "text": EDITS}, "episode_id": "shop#1"}, 422),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused(server: RewardServer, path: str, body: Any, status: int) -> None:
    response = HTTP.post(f"{server.url}/{path}", json=body)
    assert response.status_code == status, response.text
    assert response.json()["detail"]


def test_slime_gets_a_bare_number_or_an_object(server: RewardServer) -> None:
    body = {"prompt": PROMPT, "response": EDITS, "label": "shop"}
    assert HTTP.post(f"{server.url}/slime", json=body).json() == 1.0
    detail = HTTP.post(f"{server.url}/slime?detail=true", json=body).json()
    assert (detail["score"], detail["fixed"]) == (1.0, 1.0)


def test_nemo_gym_gets_its_request_back_with_the_verdict(server: RewardServer) -> None:
    response = HTTP.post(f"{server.url}/verify", json=GYM)
    assert response.status_code == 200, response.text
    verdict = response.json()
    assert {name: verdict[name] for name in GYM} == GYM
    assert (verdict["reward"], verdict["mask_sample"], verdict["failure_kind"]) == (1.0, False, None)
    assert verdict["reward_components"]["fixed"] == verdict["fixed"] == 1.0
    silent = {**GYM, "response": {"output": []}}
    assert HTTP.post(f"{server.url}/verify", json=silent).json()["reward"] == 0.0
    session = {"resources_session_id": "1", "episode_id": "e", "task_id": "t", "task_data": {}}
    assert HTTP.post(f"{server.url}/seed_session", json=session).json() == {"resources_session_id": "1"}
    assert HTTP.post(f"{server.url}/seed_session", json={}).json() == {}
    for _ in range(2):
        assert HTTP.post(f"{server.url}/close_session", json=session).json() == {"resources_session_id": "1"}
    assert HTTP.get(f"{server.url}/reverify_mode").json() == "stateless"


def test_nemo_gym_masks_an_answer_without_value(partial_server: RewardServer) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": TWO_FILES}]}
    body = {**GYM, "response": {"output": [message]}}
    verdict = HTTP.post(f"{partial_server.url}/verify", json=body).json()
    assert (verdict["mask_sample"], verdict["failure_kind"]) == (True, "verifier_error")
    assert "a mistake in the reward" in verdict["failure_reason"]


def test_nemo_gym_averages_no_masked_sample(server: RewardServer) -> None:
    rows = [
        {"_ng_task_index": 0, "reward": 1.0, "resolved": 1, "mask_sample": False, "response": {"usage": {"tokens": 7}}},
        {"_ng_task_index": 0, "reward": 0.5, "resolved": 0},
        {"_ng_task_index": 0, "reward": 0.0, "mask_sample": True},
        {"_ng_task_index": 1, "reward": 0.0, "mask_sample": True},
        {"_ng_task_index": 2, "reward": 0.0},
    ]
    metrics = HTTP.post(f"{server.url}/aggregate_metrics", json={"verify_responses": rows}).json()
    agent, groups = metrics["agent_metrics"], metrics["group_level_metrics"]
    assert (agent["mean/reward"], agent["median/reward"], agent["std/reward"]) == (0.5, 0.5, 0.5)
    assert (agent["mean/resolved"], agent["mean/tokens"]) == (0.5, 7.0)
    assert (agent["coverage/masked_rollouts"], agent["coverage/fully_masked_tasks"]) == (2, 1)
    found = [(each["_ng_task_index"], each["mean/reward"], each["num_rollouts"]) for each in groups]
    assert found == [(0, 0.75, 2), (2, 0.0, 1)]
    assert "mean/mask_sample" not in agent
    only_masked = HTTP.post(f"{server.url}/aggregate_metrics", json={"verify_responses": rows[2:4]}).json()
    assert only_masked["key_metrics"]["coverage/masked_rollouts"] == 2
    assert not any(name.startswith("mean/") for name in only_masked["agent_metrics"])
    wrong = {"verify_responses": [{"_ng_task_index": []}]}
    assert HTTP.post(f"{server.url}/aggregate_metrics", json=wrong).status_code == 422


def test_openenv_plays_an_episode_of_one_step(server: RewardServer) -> None:
    started = HTTP.post(f"{server.url}/reset", json={"seed": 1}).json()
    assert (started["reward"], started["done"]) == (None, False)
    observation = started["observation"]
    assert (observation["task_id"], "Mend total." in observation["messages"][-1]["content"]) == ("shop", True)
    step = {"episode_id": observation["episode_id"], "action": {"text": EDITS}, "timeout_s": 60}
    ended = HTTP.post(f"{server.url}/step", json=step).json()
    assert (ended["reward"], ended["done"]) == (1.0, True)
    assert ended["observation"]["metadata"]["components"]["fixed"] == 1.0
    state = HTTP.get(f"{server.url}/state", params={"episode_id": observation["episode_id"]}).json()
    assert (state["step_count"], state["task_id"]) == (1, "shop")
    assert HTTP.post(f"{server.url}/reset").json()["observation"]["task_id"] == "shop"
    HTTP.post(f"{server.url}/reset", json={"episode_id": "mine"})
    assert HTTP.post(f"{server.url}/step", json={"episode_id": "mine", "action": {"patch": ""}}).json()["reward"] == 0.0
    after_a_restart = {"episode_id": "shop#0123", "action": {"patch": FIX}}
    assert HTTP.post(f"{server.url}/step", json=after_a_restart).json()["reward"] == 1.0
    assert set(HTTP.get(f"{server.url}/schema").json()) == {"action", "observation", "state"}


def test_openenv_gets_null_for_an_answer_without_value(partial_server: RewardServer) -> None:
    ended = HTTP.post(f"{partial_server.url}/step", json={"episode_id": "shop#1", "action": {"patch": ""}}).json()
    assert (ended["reward"], ended["done"]) == (None, True)
    assert ended["observation"]["metadata"]["status"] == "unscored"
    assert ended["observation"]["metadata"]["cause"]


def test_the_answer_of_a_query_is_what_follows_its_prompt() -> None:
    assert answer_in("<s>ask: a b</s>", "ask: ") == "a b"
    long_prompt = "the beginning" + "x" * 500 + "the end: "
    assert answer_in(long_prompt[20:] + "answer<|im_end|>\n", long_prompt) == "answer"
    assert answer_in("Q a<|im_end|> b</div>", "Q ") == "a<|im_end|> b</div>"
    assert answer_in("Q a<｜end▁of▁sentence｜>", "Q ") == "a", "DeepSeek's bars are wide"
    assert answer_in("Q @@\n \n<|im_end|>\n", "Q ") == "@@\n \n", "the last line of a diff may be blank"
    with pytest.raises(UserError, match="does not contain its prompt"):
        answer_in("another text", "the prompt")


def test_end_tokens_are_found_in_linear_time() -> None:
    started = time.process_time()
    for repeated in ("\n" * 200_000, "<|im_end|>" * 50_000):
        assert answer_in(f"Q {repeated}x", "Q ") == f"{repeated}x"
    assert answer_in("Q a" + "\n<|im_end|>" * 50_000, "Q ") == "a\n"
    assert time.process_time() - started < 10, "it grew with the square of the answer"


def test_numbers_that_are_none_and_deep_labels_are_refused_with_a_reason(server: RewardServer) -> None:
    verify = '{"task_id": "shop", "x": NaN, "responses_create_params": {}, "response": {"output": []}}'
    deep = json.dumps({"query": ["q"], "prompts": ["q"], "labels": ['{"a":' * 100_000]})
    for path, body, status in (("/verify", verify, 422), ("/openrlhf", deep, 404)):
        response = HTTP.post(server.url + path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        assert response.json()["detail"]
    body = {"verify_responses": [{}, {"mask_sample": True}]}
    assert HTTP.post(f"{server.url}/aggregate_metrics", json=body).json()["group_level_metrics"][0]["num_rollouts"] == 1
