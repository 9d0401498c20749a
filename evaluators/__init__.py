"""All that runs code and all that judges: sandboxes, workers, probes, the scorer, evaluations and their statistics."""

import logging

from regrade.evaluators.attribution.attribute import attribute
from regrade.evaluators.scoring.scorer import Scorer, Stats, score
from regrade.evaluators.task_curation.local_repository import local_task

__all__ = ["Scorer", "Stats", "attribute", "local_task", "score"]

logging.getLogger("regrade").addHandler(logging.NullHandler())  # silent unless the program that imports this chooses
