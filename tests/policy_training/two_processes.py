"""One of the processes that `accelerate launch` starts: trains the plans of a pickled job, one after the other.

Writes what it saw of each: a digest of its weights at the end, which tasks it judged at which step, and how it ended.
Those that are to be killed run in forks, which must come first: this process has begun no thread yet.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from killed_training import arm

from regrade.datasets.errors import UserError
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training import train as training
from regrade.policy_training.trainers import stability
from regrade.policy_training.trainers.executed_tests import ExecutedTests
from regrade.policy_training.training_plan import TrainingPlan

NUMBER = int(os.environ["RANK"])


class Watch:
    """What this process does in a training."""

    def __init__(self, trouble: str) -> None:
        self.models: list[Any] = []
        self.judged: list[list[str]] = []
        self.trouble = trouble if NUMBER == 1 else ""
        """`fails`: at its second batch; `drifts`: it alone measures that the policy has gone far."""
        self.load, self.judge, self.measure = training.load_model, ExecutedTests._attempts, stability.kl_from

    def __enter__(self) -> Watch:
        training.load_model, stability.kl_from = self.loading, self.measuring
        ExecutedTests._attempts = lambda *args: self.judging(*args)
        return self

    def __exit__(self, *_: object) -> None:
        training.load_model, ExecutedTests._attempts, stability.kl_from = self.load, self.judge, self.measure

    def measuring(self, *args: Any) -> float | None:
        return 100.0 if self.trouble == "drifts" else self.measure(*args)

    def loading(self, *args: Any, **kwargs: Any) -> Any:
        self.models.append(self.load(*args, **kwargs))
        return self.models[-1]

    def judging(self, *args: Any) -> Any:
        attempts = self.judge(*args)
        self.judged.append([attempt.rollout.task_id for attempt in attempts])
        if len(self.judged) == 2 and self.trouble == "fails":
            raise UserError("the disk of this machine is full: free some space")
        return attempts

    def weights(self) -> str:
        (model,) = self.models
        digest = hashlib.sha256()
        for name, weight in sorted(model.model.state_dict().items()):
            digest.update(name.encode() + weight.contiguous().numpy().tobytes())
        return digest.hexdigest()


def train_here(plan: dict[str, Any], tasks: Any, trouble: str, evidence: Path, out: Path) -> None:
    seen: dict[str, Any] = {}
    with Watch(trouble) as watch, Scorer(workers=1, cache=evidence) as scorer:
        try:
            seen["checkpoint"] = str(training.train(TrainingPlan(**plan), tasks, scorer, out / "run"))
            seen["weights"] = watch.weights() if watch.models else ""
        except UserError as error:
            seen["error"] = [type(error).__name__, str(error)]
            if trouble == "fails":
                raise
        finally:
            seen["judged"] = watch.judged
            (out / f"process-{NUMBER}.json").write_text(json.dumps(seen))


def in_fork(death: tuple[Any, ...] | None, meeting: Path, *training: Any) -> None:
    """Train in a fork of each process, which meet at a port of their own; the main one may have to die."""
    if NUMBER == 0:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            draft = meeting.with_suffix(".draft")
            draft.write_text(str(free.getsockname()[1]))
        draft.rename(meeting)
    while not meeting.exists():
        time.sleep(0.02)
    child = os.fork()
    if not child:
        os.environ |= {"MASTER_PORT": meeting.read_text(), "TORCHELASTIC_USE_AGENT_STORE": "False"}
        try:
            if death is not None and NUMBER == 0:
                arm(*death, before=False)
            train_here(*training)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    meeting.with_name(f"{meeting.name}-{NUMBER}").write_text(str(ended))


def main() -> None:
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    for name, (plan, tasks, trouble) in job["plans"].items():
        out = job["out"] / name
        out.mkdir(exist_ok=True)
        if not isinstance(trouble, tuple):
            train_here(plan, tasks, trouble, job["evidence"], out)
            continue
        for number, death in enumerate((*trouble, None)):
            in_fork(death, out / f"fork-{number}", plan, tasks, "", job["evidence"], out)


if __name__ == "__main__":
    main()
