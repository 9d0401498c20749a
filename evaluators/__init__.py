"""All that runs code and all that judges it. What users import is here; everything below is private.

Score patches: Scorer, score, RayScorer, Stats; tasks: local_task, check_up, validate; explanations: attribute.
Build tasks: built_repository, from_commits, from_mutation, from_cross_module, from_features, from_refactors,
write_tasks. Evaluate policies: evaluate, enter, Entrant, Judge, Sweep, Run, rescore_run. Judge rows: load_rows, table,
metrics, side_metrics, figures, compare, task_changes, audit. Extend: Sandbox, StaticProbe.
"""

import logging
from typing import TYPE_CHECKING

from regrade.datasets.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from regrade.evaluators.analysis import metrics, side_metrics
    from regrade.evaluators.analysis.checkpoint_changes import task_changes
    from regrade.evaluators.analysis.comparison import Comparison, compare
    from regrade.evaluators.analysis.figures import figures
    from regrade.evaluators.analysis.reward_audit import audit
    from regrade.evaluators.attribution.hunk_attribution import attribute
    from regrade.evaluators.attribution.results import Attribution
    from regrade.evaluators.evaluation.rescoring import rescore_run, write_rescored
    from regrade.evaluators.evaluation.rollout_scoring import evaluate
    from regrade.evaluators.evaluation.sweeps import Entrant, Judge, Sweep, enter
    from regrade.evaluators.sandboxes.base import Sandbox
    from regrade.evaluators.scoring.probes import StaticProbe
    from regrade.evaluators.scoring.ray_scorer import RayScorer
    from regrade.evaluators.scoring.scorer import Scorer, score
    from regrade.evaluators.scoring.stats import Stats
    from regrade.evaluators.storage.rows import load_rows, table
    from regrade.evaluators.storage.run import Run
    from regrade.evaluators.task_curation.built_repository import BuiltRepository, built_repository
    from regrade.evaluators.task_curation.checkup import check_up
    from regrade.evaluators.task_curation.local_repository import local_task
    from regrade.evaluators.task_curation.measured_tasks import with_pass_to_pass
    from regrade.evaluators.task_curation.task_set_building import write_tasks
    from regrade.evaluators.task_curation.task_sources import (
        from_commits,
        from_cross_module,
        from_features,
        from_mutation,
        from_refactors,
    )
    from regrade.evaluators.task_curation.validation import validate

__all__ = [
    "Attribution",
    "BuiltRepository",
    "Comparison",
    "Entrant",
    "Judge",
    "RayScorer",
    "Run",
    "Sandbox",
    "Scorer",
    "StaticProbe",
    "Stats",
    "Sweep",
    "attribute",
    "audit",
    "built_repository",
    "check_up",
    "compare",
    "enter",
    "evaluate",
    "figures",
    "from_commits",
    "from_cross_module",
    "from_features",
    "from_mutation",
    "from_refactors",
    "load_rows",
    "local_task",
    "metrics",
    "rescore_run",
    "score",
    "side_metrics",
    "table",
    "task_changes",
    "validate",
    "with_pass_to_pass",
    "write_rescored",
    "write_tasks",
]
__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        "analysis.checkpoint_changes": ["task_changes"],
        "analysis.comparison": ["Comparison", "compare"],
        "analysis.figures": ["figures"],
        "analysis.reward_audit": ["audit"],
        "attribution.hunk_attribution": ["attribute"],
        "attribution.results": ["Attribution"],
        "evaluation.rollout_scoring": ["evaluate"],
        "evaluation.rescoring": ["rescore_run", "write_rescored"],
        "evaluation.sweeps": ["Entrant", "Judge", "Sweep", "enter"],
        "sandboxes.base": ["Sandbox"],
        "scoring.probes": ["StaticProbe"],
        "scoring.ray_scorer": ["RayScorer"],
        "scoring.scorer": ["Scorer", "score"],
        "scoring.stats": ["Stats"],
        "storage.rows": ["load_rows", "table"],
        "storage.run": ["Run"],
        "task_curation.built_repository": ["BuiltRepository", "built_repository"],
        "task_curation.checkup": ["check_up"],
        "task_curation.local_repository": ["local_task"],
        "task_curation.measured_tasks": ["with_pass_to_pass"],
        "task_curation.task_set_building": ["write_tasks"],
        "task_curation.task_sources": [
            "from_commits",
            "from_cross_module",
            "from_features",
            "from_mutation",
            "from_refactors",
        ],
        "task_curation.validation": ["validate"],
    },
    modules=["analysis.metrics", "analysis.side_metrics"],
)
logging.getLogger("regrade").addHandler(logging.NullHandler())  # silent unless the program that imports this chooses
