"""What an agent's steps cost, and how much of an agent's time passes waiting for its tests.

    python benchmarks/agents.py                        # some ten minutes on two cores
    python benchmarks/agents.py --policy FOLDER        # the actions of a checkpoint in place of the script

First every tool on ready-made tasks, with the tests of the failing test's file shown; `run_tests` beside what the
scorer itself takes for the same tests, and beside a fresh tree and a fresh process of pytest. Then trajectories with
SmolLM2-135M, many in flight and one at a time, from a cold evidence store. The embedded model has not learned the
grammar, so without --policy a script chooses what is executed: a wrong edit, its tests, `undo`, the reference, its
tests, `submit`. The model generates as many actions and reads the same observations; only what its own text says is
not executed.

The warm start of the workers (sandbox, imports, byte code) is not counted, in either part: each repository's unchanged
tree is tested before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from _latest import record
from scoring import by_pytest, cold_cache, in_subprocess

from regrade.datasets.caches import default_cache
from regrade.datasets.episodes import EpisodeEnd
from regrade.datasets.errors import UserError
from regrade.datasets.node_ids import file_of
from regrade.datasets.patches import Patch
from regrade.datasets.rollouts import Sampling
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Shown, Task
from regrade.evaluators.execution import environments
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.static.files import patched_files
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.environments.agent_tools import RepositoryEnvironment
from regrade.policy_training.environments.compact_episode import CompactEpisode
from regrade.policy_training.policies.dialogues import run_dialogues
from regrade.policy_training.policies.models import EMBEDDED, LanguageModel, load_model
from regrade.policy_training.policies.sampling_times import SamplingTimes
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.policies.transcripts import framed
from regrade.rewards.evidence import TestRun

ACTION_TOKENS = 12
"""Of a scripted action: the length of a typical line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--attempts", type=int, default=4, help="at each task")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--one-at-a-time", type=int, default=12, help="trajectories of the slow way; 0: none")
    parser.add_argument("--policy", help="a checkpoint whose actions are executed")
    parser.add_argument("--device")
    chosen = parser.parse_args()
    tasks = some_tasks(chosen.tasks)
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        built = default_cache() / "environments"
        if built.is_dir():
            (Path(name) / "environments").symlink_to(built)
        figures = tools(tasks, Path(name))
        model = load_model(chosen.policy or EMBEDDED, device=chosen.device)
        model.model.eval()
        ways = {"in_flight": (chosen.in_flight, None), "one_at_a_time": (1, chosen.one_at_a_time)}
        for way, (rows, most) in ways.items():
            if most == 0:
                continue
            with warm_scorer(tasks, Path(name), way) as scorer:
                began = time.process_time()
                if chosen.policy:
                    times, count = by_policy(model, Path(chosen.policy), tasks, chosen.attempts, scorer, rows, most)
                else:
                    times, count = by_script(model, tasks, chosen.attempts, scorer, rows, most)
                generating = time.process_time() - began
            figures |= told(way, rows, count, times, generating)
    record("agents", figures)


def some_tasks(count: int) -> list[Task]:
    """Tasks of different packages, of which the reference can be written as an action."""
    found: list[Task] = []
    for task in load_tasks(split="validation"):
        try:
            prompt_of(task).reference_answer()
        except UserError:
            continue
        files = tuple(sorted({file_of(test) for test in task.fail_to_pass}))
        found.append(replace(task, shown=Shown(tests=files)))
    by_package: dict[str, list[Task]] = {}
    for task in found:
        by_package.setdefault(task.repository, []).append(task)
    turns = max(map(len, by_package.values()))
    return [some[turn] for turn in range(turns) for some in by_package.values() if turn < len(some)][:count]


@contextmanager
def warm_scorer(tasks: Sequence[Task], folder: Path, name: str) -> Iterator[Scorer]:
    """A scorer that knows no evidence but that of the unchanged trees, and whose workers have started."""
    for task in tasks:
        environments.python_for(task.requirements, cold_cache(folder, name))
    with Scorer(cache=cold_cache(folder, name)) as scorer:
        scorer.gather([(task, Patch("")) for task in tasks for _ in range(2)], [TestRun])
        yield scorer


def tools(tasks: Sequence[Task], folder: Path) -> dict[str, float]:
    """Milliseconds of each tool, the median over the tasks; `run_tests` beside the engine alone (the same
    tests on an equal tree, gathered directly) and fresh processes of pytest."""
    seconds: dict[str, list[float]] = {}
    with warm_scorer(tasks, folder, "tools") as scorer:
        for task in tasks:
            began = time.perf_counter()
            scorer.gather([(only_shown(task), beside_reference(task))], [TestRun])
            seconds.setdefault("engine", []).append(time.perf_counter() - began)
            environment = RepositoryEnvironment({task.id: task}, scorer)
            began = time.perf_counter()
            environment.reset(task.id)
            seconds.setdefault("reset", []).append(time.perf_counter() - began)
            assert task.target is not None
            calls: dict[str, dict[str, Any]] = {
                "list_files": {},
                "read_file": {"path": task.target.file, "first_line": task.target.first_line},
                "search": {"pattern": r"def \w+\("},
                "edit": reference_edit(task),
                "run_tests": {},
                "diff": {},
                "undo": {},
                "submit": {},
            }
            for tool, arguments in calls.items():
                began = time.perf_counter()
                getattr(environment, tool)(**arguments)
                seconds.setdefault(tool, []).append(time.perf_counter() - began)
                step = environment.session.steps[-1]
                assert not step.is_mistake, step.observation
                assert step.tests is None or step.tests.is_green, step.observation
    jobs = [(task, task.reference) for task in tasks if task.reference is not None]
    beside = by_pytest(jobs, in_subprocess, folder, touched=True).walls
    figures = {f"{tool}_ms": round(1000 * statistics.median(some), 2) for tool, some in seconds.items()}
    figures["fresh_pytest_ms"] = round(1000 * statistics.median(beside), 2)
    ratios = [fresh / own for fresh, own in zip(beside, seconds["run_tests"], strict=True)]
    figures["fresh_pytest_times_run_tests"] = round(statistics.median(ratios), 2)
    for name, value in figures.items():
        print(f"{name:32} {value:10.2f}", flush=True)
    return figures


def only_shown(task: Task) -> Task:
    """The task as the engine runs it for `run_tests`."""
    shown = task.shown.tests or ()

    def kept(tests: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(test for test in tests if file_of(test) in shown)

    return replace(
        task,
        fail_to_pass=kept(task.fail_to_pass),
        pass_to_pass=kept(task.pass_to_pass),
        unnamed=kept(task.unnamed),
    )


def beside_reference(task: Task) -> Patch:
    """The reference with a comment, so that it runs anew."""
    assert task.reference is not None
    (file,) = patched_files(task.base, task.reference)
    return Patch.between({file.path: file.before or ""}, {file.path: f"{file.after}\n# the reference\n"})


def reference_edit(task: Task) -> dict[str, str]:
    """The arguments of `edit` that write the reference."""
    assert task.reference is not None
    (file,) = patched_files(task.base, task.reference)
    assert file.before is not None
    assert file.after is not None
    before, after = file.before.split("\n"), file.after.split("\n")
    place = next(number for number, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1])
    for around in range(1, len(before)):
        part = slice(max(0, place - around), place + around)
        old = "\n".join(before[part])
        if file.before.count(old) == 1:
            return {"path": file.path, "old": old, "new": "\n".join(after[part])}
    raise AssertionError(task.id)


@dataclass
class ScriptedAgent:
    """A dialogue in which the model's tokens are read, and actions of a script are executed."""

    model: LanguageModel
    episode: CompactEpisode
    script: list[str]
    temperature: float = 1.0

    @property
    def prompt(self) -> list[int]:
        return self.model.encode(self.episode.prompt)

    def reply(self, tokens: list[int]) -> list[int] | None:
        del tokens
        shown = self.episode.act(self.script.pop(0))
        return None if shown is None else self.model.encode(framed(shown))


def by_script(
    model: LanguageModel, tasks: Sequence[Task], attempts: int, scorer: Scorer, rows: int, most: int | None
) -> tuple[SamplingTimes, int]:
    """The times of trajectories that err, see it, take it back and repair it; each attempt has trees of its own."""
    agents = []
    for task in tasks:
        number, _, right = prompt_of(task).reference_answer().partition(" ")
        shown = prompt_of(task).text.split("\n")[int(number) - 1]
        wrong = shown.partition(" ")[2].strip()
        for attempt in range(attempts):
            episode = CompactEpisode(RepositoryEnvironment({task.id: task}, scorer), task.id)
            edits = [f"{number} {text}  # {attempt}" for text in (wrong, right)]
            agents.append(ScriptedAgent(model, episode, [edits[0], "test", "undo", edits[1], "test", "submit"]))
    times = SamplingTimes()
    for _ in run_dialogues(
        model.model, agents[:most], stop_ids=(), max_action_tokens=ACTION_TOKENS, max_tokens=1000, seed=0, rows=rows,
        times=times,
    ):  # fmt: skip
        pass
    episodes = [agent.episode.episode() for agent in agents[:most]]
    assert all(episode.test_runs == 2 and episode.end is EpisodeEnd.SUBMITTED for episode in episodes)
    assert all(episode.tested_before_the_end for episode in episodes)
    return times, len(episodes)


def by_policy(
    model: LanguageModel,
    folder: Path,
    tasks: Sequence[Task],
    attempts: int,
    scorer: Scorer,
    rows: int,
    most: int | None,
) -> tuple[SamplingTimes, int]:
    """The times of a checkpoint's own trajectories."""
    policy = AgentPolicy(model, scorer, folder.name, AgentFormat.of_checkpoint(folder), rows=rows)
    if most is not None:
        tasks = tasks[: max(1, most // attempts)]
    rollouts = list(policy.propose(tasks, [Sampling(0.8, attempts)], seed=0))
    turns, runs = (
        statistics.mean(count(rollout.episode) for rollout in rollouts if rollout.episode)
        for count in (lambda episode: len(episode.steps), lambda episode: episode.test_runs)
    )
    print(f"{turns:.1f} turns and {runs:.1f} test runs a trajectory")
    return policy.times, len(rollouts)


def told(way: str, rows: int, count: int, times: SamplingTimes, generating: float) -> dict[str, float]:
    """Print the figures of one way of sampling, and return them for the record.

    Args:
        generating: CPU seconds of this process, in which the model runs and the tests don't.
    """
    figures = {
        "trajectories": count,
        "seconds_each": round(times.seconds / count, 3),
        "generating_cpu_seconds_each": round(generating / count, 3),
        "tokens_per_second": round(times.action_tokens / times.seconds, 1),
        "shown_tokens_per_second": round(times.shown_tokens / times.seconds, 1),
        "waited_percent": round(100 * times.waited_share, 1),
        "reply_ms": round(1000 * times.reply_seconds / times.replies, 1),
    }
    print(f"{way.replace('_', ' ')} ({rows})")
    for name, value in figures.items():
        print(f"  {name:30} {value:10}", flush=True)
    return {f"{way}_{name}": value for name, value in figures.items()}


if __name__ == "__main__":
    main()
