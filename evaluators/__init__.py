"""All that runs code and all that judges: sandboxes, workers, probes, the scorer, evaluations and their statistics."""

from regrade.evaluators.attribution.hunk_attribution import attribute
from regrade.evaluators.scoring.scorer import Scorer, Stats, score
from regrade.evaluators.task_curation.local_repository import local_task

__all__ = ["Scorer", "Stats", "attribute", "local_task", "score"]
