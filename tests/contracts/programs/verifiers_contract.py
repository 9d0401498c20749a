"""verifiers: its configuration plugs the function into a task, and its own scoring runs it."""

import asyncio

import verifiers.v1 as vf
from shared import BREAK, FIX, LOST, refused, report, values
from verifiers.v1.configs.task import RewardFunctionConfig
from verifiers.v1.trace import AgentInfo, TraceTask

MODULE = "regrade.policy_training.adapters.verifiers"
expected = values()


def task_and_trace(answer: str) -> tuple[vf.Task, vf.Trace]:
    data = vf.TaskData(id="second", prompt="Mend second().")
    config = vf.TaskConfig.model_validate(
        {"rewards": {"regrade": {"fn": f"{MODULE}:regrade"}}, "metrics": {"parts": {"fn": f"{MODULE}:components"}}}
    )
    assert isinstance(config.rewards["regrade"], RewardFunctionConfig)
    task = vf.Task(data, config)
    named = TraceTask(type="Task", data=data, key=task.key, hash=task.hash)
    trace = vf.Trace(task=named, agent=AgentInfo(config=vf.AgentConfig()))
    trace.root_reply = answer
    return task, trace


def scored(answer: str) -> vf.Trace:
    task, trace = task_and_trace(answer)
    asyncio.run(task.score(trace))
    return trace


good = scored(FIX)
assert good.reward == expected["fix"]
assert good.metrics["resolved"] == good.metrics["tests"] == 1.0
assert scored(BREAK).reward == expected["break"]
kind = refused(lambda: scored(LOST))
task, trace = task_and_trace(LOST)
refused(lambda: asyncio.run(task.score(trace)))
assert trace.rewards == {"regrade": None}
report(
    "verifiers",
    "the configuration's loader of plugged functions, `Task.score`, rewards and metrics of the trace",
    f"`Task.score` raises `{kind}` and the reward of the trace stays None",
)
