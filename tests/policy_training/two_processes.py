"""One of the processes that `accelerate launch` starts: trains the plans of a pickled job, one after the other.

Writes what it saw of each: a digest of its weights at the end, which tasks it judged at which step, and how it ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training import train as training
from regrade.policy_training.train import TrainingPlan
from regrade.policy_training.trainers import online, stability

NUMBER = int(os.environ["RANK"])


class Watch:
    """What this process does in a training."""

    def __init__(self, trouble: str) -> None:
        self.models: list[Any] = []
        self.judged: list[list[str]] = []
        self.trouble = trouble if NUMBER == 1 else ""
        """`fails`: at its second batch; `drifts`: it alone measures that the policy has gone far."""
        self.load, self.judge, self.measure = training.load_model, online.judge, stability.kl_from

    def __enter__(self) -> Watch:
        training.load_model, online.judge, stability.kl_from = self.loading, self.judging, self.measuring
        return self

    def __exit__(self, *_: object) -> None:
        training.load_model, online.judge, stability.kl_from = self.load, self.judge, self.measure

    def measuring(self, *args: Any) -> float | None:
        return 100.0 if self.trouble == "drifts" else self.measure(*args)

    def loading(self, *args: Any, **kwargs: Any) -> Any:
        self.models.append(self.load(*args, **kwargs))
        return self.models[-1]

    def judging(self, rollouts: Any, *args: Any, **kwargs: Any) -> Any:
        attempts = self.judge(rollouts, *args, **kwargs)
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


def main() -> None:
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    for name, (plan, tasks, trouble) in job["plans"].items():
        out = job["out"] / name
        out.mkdir(exist_ok=True)
        seen: dict[str, Any] = {}
        with Watch(trouble) as watch, Scorer(workers=1, cache=job["evidence"]) as scorer:
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


if __name__ == "__main__":
    main()
