"""The options of the commands that score a patch: for which task, by which reward, in which sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regrade.cli.jobs import ScoreRequest
from regrade.cli.options import (
    AssuranceOption,
    Deselect,
    FailToPass,
    PythonPath,
    Repo,
    RewardName,
    SandboxName,
    TaskFile,
    TaskId,
    TestPaths,
    TestTimeout,
    TimeLimit,
)


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """The options that such commands share; None: not given."""

    repo: Repo = Path()
    fail_to_pass: FailToPass = None
    tests: TestPaths = None
    deselect: Deselect = None
    python_path: PythonPath = None
    reward: RewardName = "default"
    sandbox: SandboxName = "auto"
    tasks: TaskFile = None
    task: TaskId = None
    time_limit: TimeLimit = None
    test_timeout: TestTimeout = None
    assured: AssuranceOption = None

    def request(self, *, workers: int | None = None, reachable: bool = False, fresh: bool = False) -> ScoreRequest:
        """What they ask for, with the options that not all of these commands have."""
        return ScoreRequest(
            repo=self.repo,
            fail_to_pass=tuple(self.fail_to_pass or ()),
            tests=tuple(self.tests or ()),
            deselect=tuple(self.deselect or ()),
            python_path=tuple(self.python_path or ()),
            tasks=self.tasks,
            task=self.task,
            reward=self.reward,
            sandbox=self.sandbox,
            workers=workers,
            reachable=reachable,
            time_limit=self.time_limit,
            test_timeout=self.test_timeout,
            fresh=fresh,
            assured=self.assured,
        )
