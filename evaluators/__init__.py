"""All that runs code and all that judges: sandboxes, workers, probes, the scorer, evaluations and their statistics."""

from regrade.evaluators.attribution.attribute import attribute
from regrade.evaluators.local import local_task
from regrade.evaluators.scoring.scorer import Scorer, Stats, score

__all__ = ["Scorer", "Stats", "attribute", "local_task", "score"]
