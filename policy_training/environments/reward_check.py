"""Can a reward teach anything? Tried on generated evidence before the first step, without running anything."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from regrade.datasets.errors import UserError
from regrade.datasets.reproducible_draws import reproducible_draws
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import EvidenceSet, Integrity, TestRun
from regrade.rewards.examples import evidence_sets

EXAMPLES = 100
LEVELS = list(AssuranceLevel)


def check_teaches(pays: TrainingReward) -> None:
    """Raises UserError for a reward that is the same or unscored on all evidence, and for one that raises.

    What an unreadable answer or an empty patch is paid is no reward of the evidence, so it does not count. A reward
    with evidence of the user's own, for which no examples can be made, is not tried.
    """
    name, values = pays.reward.name, _values(pays)
    if values is None:
        return
    scored = {value for value in values if value is not None}
    if not scored:
        raise UserError(
            f"reward {name!r} is unscored on each of {len(values)} generated pieces of evidence, so nothing can be "
            "learned from it: see what it lacks by `regrade rewards check`"
        )
    if len(scored) == 1:
        raise UserError(
            f"reward {name!r} is {scored.pop():g} on each of {len(values)} generated pieces of evidence, and attempts "
            "with equal rewards teach nothing: if it pays for something rarer than these show, add a term that varies, "
            "such as 0.01 * tests"
        )


def _values(pays: TrainingReward) -> list[float | None] | None:
    """What is paid on examples; None: none can be made."""
    try:
        sets = evidence_sets(pays.reward.needs | {TestRun, Integrity}, {})
    except TypeError:
        return None
    values: list[float | None] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate,),
    )
    @given(sets)
    def collect(evidence: EvidenceSet) -> None:
        values.append(_value(pays, replace(evidence, assurance=LEVELS[len(values) % len(LEVELS)])))

    with reproducible_draws():
        collect()
    return values


def _value(pays: TrainingReward, evidence: EvidenceSet) -> float | None:
    run: Any = evidence.records[TestRun]
    integrity: Any = evidence.records[Integrity]
    return pays.value(pays.reward.evaluate(evidence), run, tampered=bool(integrity.kinds))
