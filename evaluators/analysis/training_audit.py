"""What a reward taught over a training run, by component, from the numbers that each step logged.

The numbers of a step are those of `component_effects.component_numbers`, in the training log of a run. Steps of one
phase are averaged: by their groups with different values, of which `share`, `decides` and the correlations speak; a
mean of the first and of the last quarter of the steps; and the spread as the root of the mean square.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from regrade.evaluators.analysis.component_effects import DIFFERENT, GROUPS, LIMITS, PREFIX, STEP_COSTS, WEIGHTS
from regrade.evaluators.storage.run import Run

ENDS = 0.25
"""The share of the steps whose mean is the first one, and the last one."""
OPPOSES = -0.01
"""Below this share, a component opposes the others."""
FEW_FIXES = 0.5
"""Below this correlation with clean fixes, being paid without one is worth a finding."""
OFTEN, RARELY = 0.5, 0.05
"""Of groups that a component decides; of attempts that are paid without a clean fix."""
WITH_BREAKAGE = 0.1
"""Above this correlation, a component rises with breakage."""
NO_PARTS = frozenset({WEIGHTS, LIMITS, STEP_COSTS})

LoggedStep = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class ComponentAudit:
    """One component over the steps of a phase. A number that no step defines is None."""

    name: str
    first: float | None
    last: float | None
    """Mean over the first, and over the last, quarter of the steps (see `component_numbers`)."""
    std_within: float | None
    share: float | None
    decides: float | None
    with_resolved: float | None
    with_breakage: float | None
    paid_unresolved: float | None

    @property
    def is_gate(self) -> bool:
        return self.name.startswith("only_if(")

    @property
    def is_price(self) -> bool:
        return self.name.startswith("price(")


@dataclass(frozen=True, kw_only=True)
class TrainingAudit:
    """The components of a reward over one phase of training."""

    phase: str
    steps: int
    """Steps with numbers: one a generation."""
    groups: int
    different_groups: int
    """Groups with different values: a trainer that compares attempts learns nothing from the others."""
    components: tuple[ComponentAudit, ...]
    """Those that decide most come first."""
    findings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "components": [asdict(component) for component in self.components]}


def audit_training(run: Run) -> list[TrainingAudit]:
    """The audits of the phases of a run that logged components of a reward; in the order of the phases' names."""
    return [
        audit_steps(phase, logged)
        for phase, steps in sorted(run.training().items())
        if (logged := [step for step in steps if step.get(GROUPS) is not None])
    ]


def audit_steps(phase: str, steps: Sequence[LoggedStep]) -> TrainingAudit:
    """The audit of the logged steps of one phase."""
    names = dict.fromkeys(
        key.removeprefix(PREFIX).rpartition("/")[0]
        for step in steps
        for key in step
        if key.startswith(PREFIX) and key.count("/") > 1
    )
    components = [_component(name, steps) for name in names]
    audit = TrainingAudit(
        phase=phase,
        steps=len(steps),
        groups=round(sum(step[GROUPS] for step in steps)),
        different_groups=round(sum(step.get(DIFFERENT) or 0.0 for step in steps)),
        components=tuple(sorted(components, key=lambda each: (-(each.decides or 0.0), -abs(each.share or 0.0)))),
    )
    return replace(audit, findings=tuple(_findings(audit)))


def _component(name: str, steps: Sequence[LoggedStep]) -> ComponentAudit:
    def values(key: str) -> list[tuple[float, float]]:
        """(value, groups with different values) of each step that has it."""
        found = [(step.get(f"{PREFIX}{name}/{key}"), float(step.get(DIFFERENT) or 0.0)) for step in steps]
        return [(float(value), weight) for value, weight in found if value is not None]

    def over_groups(key: str) -> float | None:
        return _weighted_mean(values(key))

    means = [value for value, _ in values("mean")]
    end = max(1, round(ENDS * len(means)))
    spreads = [value**2 for value, _ in values("std_within")]
    return ComponentAudit(
        name=name,
        first=_mean(means[:end]),
        last=_mean(means[-end:]),
        std_within=math.sqrt(math.fsum(spreads) / len(spreads)) if spreads else None,
        share=over_groups("share"),
        decides=over_groups("decides"),
        with_resolved=over_groups("with_resolved"),
        with_breakage=over_groups("with_breakage"),
        paid_unresolved=_mean([value for value, _ in values("paid_unresolved")]),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _weighted_mean(pairs: Sequence[tuple[float, float]]) -> float | None:
    whole = math.fsum(weight for _, weight in pairs)
    return math.fsum(value * weight for value, weight in pairs) / whole if whole else None


def _findings(audit: TrainingAudit) -> Iterator[str]:
    if not audit.groups:
        yield "no step compared attempts: no task had two of them that could be judged"
        return
    if not audit.different_groups:
        yield f"the attempts of all {audit.groups:,} groups were paid the same: the reward taught nothing"
        return
    same = 1 - audit.different_groups / audit.groups
    if same >= OFTEN:
        yield f"in {same:.0%} of the groups all attempts were paid the same: these groups taught nothing"
    for component in audit.components:
        yield from _findings_of(component)


def _findings_of(component: ComponentAudit) -> Iterator[str]:
    name, share, decides = component.name, component.share or 0.0, component.decides or 0.0
    if component.is_price and not component.first and not component.last and not component.std_within:
        return  # what never happened
    if component.std_within == 0.0 and name not in NO_PARTS:
        yield f"{name} never differs within a group: it teaches nothing"
        return
    if share < OPPOSES:
        yield f"{name} opposes the other components: its share is {share:.0%}"
    if component.is_gate or component.is_price:
        return
    if component.std_within and not any(abs(each or 0.0) > 0.0 for each in (share, decides)):
        yield f"{name} differs only where it is not paid, or the attempts that are paid it are alone in their groups"
    with_fixes = component.with_resolved or 0.0
    if decides >= OFTEN and with_fixes < FEW_FIXES:
        yield (
            f"{name} decides in {decides:.0%} of the groups, and its correlation with clean fixes is {with_fixes:.2f}: "
            "give it less weight, or put it behind `resolved`"
        )
    unresolved = component.paid_unresolved or 0.0
    if unresolved >= RARELY and with_fixes < FEW_FIXES:
        yield (
            f"{name} is paid without a clean fix in {unresolved:.0%} of the attempts: `only_if(resolved)` would stop it"
        )
    if (component.with_breakage or 0.0) > WITH_BREAKAGE:
        yield f"{name} rises with breakage: the correlation is {component.with_breakage:.2f}"
