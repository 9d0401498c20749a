"""`regrade report --steps` and `regrade explain` of an agent's attempts, which the environment itself recorded."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from regrade import rewards
from regrade.datasets.rollouts import Rollout
from regrade.datasets.sources import load_tasks
from regrade.evaluators.evaluation.rollout_scoring import evaluate
from regrade.evaluators.scoring.scorer import Scorer
from regrade.evaluators.storage.run import Run
from regrade.policy_training import EpisodeLimits, RepositoryEnvironment


@pytest.fixture
def run(tasks: Path, tmp_path: Path, cache: Path) -> Path:
    """Two attempts at one task: one breaks a neighbour, sees it and takes it back; one hands it in."""
    (task, *_) = load_tasks(str(tasks))
    assert task.reference is not None
    (edited,) = task.reference.files
    (_, old), (_, new) = edited.removed[0], edited.added[0]
    run = Run(tmp_path / "run")
    run.add_policy("agent", "candidate", best_temperature=0.7)
    run.record_tasks([task])
    text = task.base.read(edited.path)
    with Scorer(workers=1, cache=cache) as scorer:
        environment = RepositoryEnvironment({task.id: task}, scorer, EpisodeLimits(turns=9))
        rollouts = []
        for sample in range(2):
            environment.reset(task.id)
            environment.edit(edited.path, text, f"raise ValueError('<b>{sample}')\n" + text)
            if not sample:
                environment.run_tests()
                environment.undo()
                environment.edit(edited.path, f"{old}\n", f"{new}\n")
                environment.submit()
            episode = environment.session.episode()
            rollouts.append(
                Rollout(
                    task_id=task.id,
                    policy="agent",
                    temperature=0.7,
                    sample=sample,
                    seed=0,
                    patch=episode.patch,
                    episode=episode,
                )
            )
        evaluate(rollouts, [task], scorer, rewards.tests, run.evaluation("agent"))
    return run.folder


def test_a_report_shows_what_each_step_did_to_the_full_tests(
    regrade: Callable[..., object], run: Path, tasks: Path
) -> None:
    plain = regrade("report", run)
    assert plain.code == 0, plain.err
    page = (run / "report.html").read_text()
    assert "Trajectory: 5 steps, 1 test run" in page
    assert "is not measured: `regrade report RUN --steps`" in page
    told = regrade("report", run, "--steps", "--tasks", tasks, "--workers", "1")
    assert told.code == 0, told.err
    assert "agent: 2 attempts, 3 distinct trees run now" in told.err
    page = (run / "report.html").read_text()
    assert "is not measured" not in page
    for words in ("How the agents work", "+1 fixed", "−3 broken", "+3 restored", "saw 4 failed", "&lt;b&gt;0"):
        assert words in page, words
    agent = json.loads((run / "summary.json").read_text())["policies"]["agent"]["metrics"]["agent"]
    assert agent["breakage_taken_back"]["value"] == 0.5
    assert agent["ends"] == {"submitted": 1, "abandoned": 1}
    assert "0 distinct trees run now" in regrade("report", run, "--steps", "--tasks", tasks).err

    shown = regrade("explain", run, "--policy", "agent")
    assert "Steps: 5 steps, 1 test run" in shown.out
    assert "+1 fixed" in shown.out
    assert "raise ValueError" not in shown.out
    assert "raise ValueError('<b>0')" in regrade("explain", run, "--observations").out
    found = json.loads(regrade("explain", run, "--json", "--sample", "1").out)
    assert found["episode"]["end"] == "abandoned"
    assert found["effects"][0]["is_kept"] is True


def test_what_steps_need_is_said(regrade: Callable[..., object], run: Path, tasks: Path) -> None:
    assert regrade("report", run, "--tasks", tasks).is_refusal("--tasks needs --steps")
    assert regrade("explain", run, "--observations", "--json").is_refusal("--observations")
    episodes = run / "evaluations" / "agent.episodes"
    episodes.write_text("{}\n" + episodes.read_text())
    assert regrade("report", run).is_refusal("agent.episodes, line 1", "delete that line")
    episodes.unlink()
    assert regrade("report", run, "--steps").is_refusal("none of its policies has recorded steps")
