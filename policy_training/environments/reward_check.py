"""Can a reward teach anything? Tried on generated evidence before the first step, without running anything."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from regrade.datasets.errors import UserError
from regrade.datasets.reproducible_draws import reproducible_draws
from regrade.policy_training.environments.training_reward import TrainingReward
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.evidence import End, EvidenceSet, Integrity, TestOutcome, TestRun, TestStatus
from regrade.rewards.examples import evidence_sets

ROUNDING = 1e-9
EXAMPLES = 50
"""Each as it is drawn, and as that of a clean fix without side effects, which random evidence rarely is."""
LEVELS = list(AssuranceLevel)


def check_teaches(pays: TrainingReward) -> None:
    """Raises UserError for a reward that is the same or unscored on all evidence, leaves [0, 1], or raises.

    What an unreadable answer, a patch that does not apply or an empty one is paid is no reward of the evidence, so it
    does not count. A reward with evidence of the user's own, for which no examples can be made, is not tried.
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
    if len(scored) == 1 and None not in values:  # else it depends on the evidence, in a way that these don't show
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
        at_level = replace(evidence, assurance=LEVELS[len(values) // 2 % len(LEVELS)])
        values.extend(_value(pays, each) for each in (at_level, _of_clean_fix(at_level)))

    with reproducible_draws():
        collect()
    return values


def _of_clean_fix(evidence: EvidenceSet) -> EvidenceSet:
    run: TestRun = evidence.records[TestRun]
    integrity: Integrity = evidence.records[Integrity]
    passed = dict.fromkeys(run.outcomes, TestOutcome(TestStatus.PASSED))
    clean = {
        **{kind: _without_content(record) for kind, record in evidence.records.items()},
        TestRun: replace(run, outcomes=passed, end=End.COMPLETED, detail=""),
        Integrity: replace(integrity, signs=()),
    }
    return replace(evidence, records=clean)


def _without_content(record: Any) -> Any:
    """The record with zeros, empty texts and empty tuples: nothing grew, nothing else is affected."""
    values = {each.name: getattr(record, each.name) for each in fields(record) if each.init}
    empty = {name: type(value)() for name, value in values.items() if type(value) in (int, float, str, tuple)}
    return replace(record, **empty)


def _value(pays: TrainingReward, evidence: EvidenceSet) -> float | None:
    run: TestRun = evidence.records[TestRun]
    integrity: Integrity = evidence.records[Integrity]
    verdict = pays.reward.evaluate(evidence)
    if verdict.value is not None and not -ROUNDING <= verdict.value <= 1 + ROUNDING:
        raise UserError(
            f"reward {pays.reward.name!r} is {verdict.value:g} on a generated piece of evidence, and rewards lie in "
            "[0, 1], which the prices of a training are made for: let its weights add up to 1"
        )
    if run.end is End.NOT_APPLIED:  # paid as an unreadable answer, which does not count here
        run = replace(run, end=End.CRASHED)
    return pays.payment(verdict, run, tampered=bool(integrity.kinds)).value
