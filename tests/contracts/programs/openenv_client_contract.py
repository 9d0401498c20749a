"""OpenEnv's client and its validator of servers, against `regrade serve`: the package's own server is not needed."""

import threading

from openenv.cli._validation import validate_running_environment
from openenv.core.generic_client import GenericEnvClient
from shared import BREAK, DAEMON, FIX, LOST, MALFORMED, free_port, report, values

from regrade.policy_training.adapters.configured import configured_verdicts
from regrade.policy_training.serving.reward_server import RewardServer
from regrade.policy_training.serving.settings import ServerSettings

expected = values()


def episode(client: object, answer: str) -> tuple[float | None, dict]:
    begun = client.reset(task_id="second")
    assert begun.observation["task_id"] == "second"
    assert "second()" in begun.observation["messages"][1]["content"]
    assert (begun.reward, begun.done) == (None, False)
    ended = client.step({"text": answer})
    assert ended.done
    assert client.state()["step_count"] == 1
    return ended.reward, ended.observation["metadata"]


def refusal(client: object) -> str:
    try:
        begun = client.reset(task_id="third")
    except RuntimeError as error:
        return str(error)
    raise AssertionError(f"an unknown task begins an episode: {begun}")


with RewardServer(configured_verdicts(), ServerSettings(port=free_port()), running=1) as server:
    serving = threading.Thread(target=server.run)
    serving.start()
    checked = validate_running_environment(server.url, timeout_s=60)
    assert checked["passed"], [each for each in checked["criteria"] if not each["passed"]]
    with GenericEnvClient(base_url=server.url, message_timeout_s=300).sync() as client:
        reward, verdict = episode(client, FIX)
        assert (reward, verdict["components"]["resolved"]) == (expected["fix"], 1.0)
        assert episode(client, BREAK)[0] == expected["break"]
        assert episode(client, MALFORMED)[0] == expected["malformed"]
        reward, verdict = episode(client, LOST)
        assert (reward, verdict["status"]) == (None, "unscored"), reward
        assert DAEMON in verdict["cause"]
        assert "no task 'third'" in refusal(client)
    server.stop()
    serving.join(60)
    assert not serving.is_alive()
report(
    "openenv",
    "its client over the WebSocket of `regrade serve`: reset, step, state, an error; its validator of running servers",
    "the reward of the step is None, with status and cause in its metadata; the package has no advantages",
)
