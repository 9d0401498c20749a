"""Effects of a reward's components: they add up, whatever the composition, and what is constant has none."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.evaluators.analysis.component_effects import PaidAttempt, component_numbers, effects
from regrade.evaluators.analysis.training_audit import audit_steps
from regrade.rewards.algebra import Reward, minimum, reward
from regrade.rewards.evidence import EvidenceSet
from regrade.rewards.score import Score


@dataclass(frozen=True)
class Facts:
    """The evidence of these tests: the values of three leaves, and two gates."""

    a: float | None = 0.5
    b: float | None = 0.5
    c: float | None = 0.5
    is_open: bool = True
    is_built: bool = True


def score(value: float | None) -> Score:
    return Score.unscored("does not apply") if value is None else Score(value)


@reward
def a(facts: Facts) -> Score:
    return score(facts.a)


@reward
def b(facts: Facts) -> Score:
    return score(facts.b)


@reward
def c(facts: Facts) -> Score:
    return score(facts.c)


@reward
def is_open(facts: Facts) -> Score:
    return Score(float(facts.is_open))


@reward
def is_built(facts: Facts) -> Score:
    return Score(float(facts.is_built))


def paid(composed: Reward, facts: Facts, **more: object) -> PaidAttempt:
    breakdown = composed.evaluate(EvidenceSet({Facts: facts}))
    assert breakdown.value is not None
    return replace(PaidAttempt(value=breakdown.value, parts=breakdown.parts), **more)  # type: ignore[arg-type]


VALUES = st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0])
LEAVES = st.sampled_from([a, b, c])
WEIGHTS = st.sampled_from([0.1, 0.5, 1.0])
COMPOSED = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda x, y, w, v: w * x + v * y, inner, inner, WEIGHTS, WEIGHTS),
        st.builds(lambda x: x.only_if(is_open), inner),
        st.builds(lambda x: x.only_if(is_built, is_open), inner),
        st.builds(lambda x: x.only_if(a.at_least(0.5)), inner),
        st.builds(lambda x: x.clip(0.1, 0.6), inner),
        st.builds(lambda x: x.at_least(0.5), inner),
        st.builds(lambda x: x.otherwise(0.9), inner),
        st.builds(minimum, inner, inner),
        st.builds(lambda x: x.named("quality"), inner),
    ),
    max_leaves=5,
)
FACTS = st.builds(Facts, VALUES, VALUES, VALUES | st.none(), st.booleans(), st.booleans())
PRICES = st.sampled_from(["", "", "", "breakage", "malformed"])


@given(composed=COMPOSED, found=st.lists(st.tuples(FACTS, PRICES, VALUES), min_size=2, max_size=6), offset=VALUES)
def test_effects_add_up_to_what_an_attempt_is_paid_beyond_its_group(
    composed: Reward, found: list[tuple[Facts, str, float]], offset: float
) -> None:
    """With gates, weights, limits, thresholds, minima, parts that do not apply, prices, step costs, and limits."""
    group = []
    for facts, cause, cost in found:
        breakdown = composed.evaluate(EvidenceSet({Facts: facts}))
        if breakdown.value is None:
            continue
        value = -1.0 if cause else min(0.8, 2.0 * breakdown.value + offset)
        more = {"cause": cause, "scale": 2.0, "offset": offset, "step_costs": -cost}
        group.append(PaidAttempt(value=value - cost, parts=breakdown.parts, **more))  # type: ignore[arg-type]
    if len(group) < 2:
        return
    of = effects(group)
    mean = math.fsum(attempt.value for attempt in group) / len(group)
    for row, attempt in enumerate(group):
        assert math.fsum(amounts[row] for amounts in of.values()) == pytest.approx(attempt.value - mean, abs=1e-9)
    for amounts in of.values():
        assert math.fsum(amounts) == pytest.approx(0.0, abs=1e-9)
    numbers = component_numbers(group, [group])
    shares = [value for key, value in numbers.items() if key.endswith("/share")]
    if numbers["reward/different_groups"]:
        assert math.fsum(shares) == pytest.approx(1.0)
    else:
        assert shares == []


@given(composed=COMPOSED, found=st.lists(FACTS, min_size=2, max_size=6), constant=VALUES)
def test_a_component_that_is_constant_decides_in_no_group(
    composed: Reward, found: list[Facts], constant: float
) -> None:
    """Whatever gates, weights and limits it stands behind."""
    group = [paid(composed, replace(facts, b=constant, c=0.5)) for facts in found]
    assert effects(group).get("b", [0.0]) == pytest.approx([0.0] * len(effects(group).get("b", [0.0])), abs=1e-9)
    numbers = component_numbers(group, [group])
    assert numbers.get("reward/b/decides", 0.0) == 0.0
    assert numbers.get("reward/b/std_within", 0.0) == pytest.approx(0.0, abs=1e-9)


@given(found=st.lists(VALUES, min_size=2, max_size=6), weight=WEIGHTS)
def test_a_component_that_is_the_whole_reward_decides_wherever_attempts_differ(
    found: list[float], weight: float
) -> None:
    group = [paid(weight * a + 0.5 * b, Facts(a=value)) for value in found]
    alike = [paid(a, Facts())] * 3
    numbers = component_numbers([*group, *alike], [group, alike])
    assert numbers["reward/groups"] == 2
    assert numbers["reward/different_groups"] == float(len(set(found)) > 1)
    if len(set(found)) > 1:
        assert numbers["reward/a/decides"] == 1.0
        assert numbers["reward/a/share"] == pytest.approx(1.0)
        assert numbers["reward/b/decides"] == 0.0
    else:
        assert "reward/a/decides" not in numbers


@given(found=st.lists(st.tuples(VALUES, st.booleans()), min_size=3, max_size=8))
def test_a_gate_has_the_variance_between_open_and_closed_and_its_leaf_that_within(
    found: list[tuple[float, bool]],
) -> None:
    """The law of total variance."""
    values = np.array([value if opened else 0.0 for value, opened in found])
    if values.var() < 1e-9:
        return
    of_open = np.array([value for value, opened in found if opened])
    within = of_open.var() * len(of_open) / len(found)
    group = [paid(a.only_if(is_open), Facts(a=value, is_open=opened)) for value, opened in found]
    numbers = component_numbers(group, [group])
    assert numbers["reward/a/share"] == pytest.approx(within / values.var(), abs=1e-9)
    if not all(opened for _, opened in found):
        assert numbers["reward/only_if(is_open)/share"] == pytest.approx(1 - within / values.var(), abs=1e-9)


def test_what_two_closed_gates_withhold_they_share() -> None:
    both = a.only_if(is_open, is_built)
    group = [paid(both, Facts(a=0.9)), paid(both, Facts(a=0.9)), paid(both, Facts(is_open=False, is_built=False))]
    of = effects(group)
    assert of["only_if(is_open)"] == pytest.approx([0.15, 0.15, -0.3])
    assert of["only_if(is_built)"] == pytest.approx([0.15, 0.15, -0.3])


def test_a_price_has_the_whole_difference_to_the_other_attempts() -> None:
    others = [paid(a, Facts(a=value)) for value in (1.0, 1.0, 0.4)]
    of = effects([*others, PaidAttempt(value=-0.6, cause="malformed")])
    assert of["price(malformed)"] == pytest.approx([0.35, 0.35, 0.35, -1.05])
    assert of["a"] == pytest.approx([0.2, 0.2, -0.4, 0.0])


def test_a_part_that_does_not_apply_moves_the_weights_and_has_no_value() -> None:
    composed = 0.5 * a + 0.5 * c
    group = [paid(composed, Facts(a=1.0, c=0.0)), paid(composed, Facts(a=1.0, c=None))]
    numbers = component_numbers(group, [group])
    assert numbers["reward/c/mean"] == 0.0, "what does not apply is no 0 of a mean, and here the other one is 0"
    assert "reward/c/std_within" not in numbers
    assert numbers["reward/weights/decides"] == 1.0


def test_the_numbers_of_a_step() -> None:
    """Quality outside the gate decides where nothing is fixed, and is paid without a fix."""

    def group(values: Sequence[tuple[float, float, bool]]) -> list[PaidAttempt]:
        return [
            paid(0.7 * a + 0.3 * b, Facts(a=one, b=other), is_resolved=one == 1.0, broke=broke)
            for one, other, broke in values
        ]

    fixed = group([(1.0, 0.5, False), (0.0, 0.5, True), (0.0, 0.5, False), (0.0, 0.5, True)])
    unfixed = group([(0.0, 1.0, True), (0.0, 0.5, False), (0.0, 0.5, False), (0.0, 0.0, False)])
    numbers = component_numbers([*fixed, *unfixed], [fixed, unfixed], causes=["breakage"])
    assert numbers["reward/a/mean"] == 0.125
    assert numbers["reward/a/std_within"] == pytest.approx(math.sqrt(0.75 / 6))
    assert (numbers["reward/a/decides"], numbers["reward/b/decides"]) == (0.5, 0.5)
    assert numbers["reward/a/share"] == pytest.approx(0.7**2 * 0.75 / (0.7**2 * 0.75 + 0.3**2 * 0.5))
    assert numbers["reward/a/with_resolved"] == pytest.approx(1.0)
    assert numbers["reward/b/with_breakage"] > 0
    assert "reward/b/with_resolved" in numbers
    assert numbers["reward/b/paid_unresolved"] == pytest.approx(6 / 8)
    assert numbers["reward/a/paid_unresolved"] == 0.0
    assert numbers["reward/price(breakage)/mean"] == 0.0
    assert component_numbers([], []) == {}


def test_the_audit_says_what_taught_nothing_and_what_is_paid_without_a_fix() -> None:
    draws = random.Random(0)
    steps = []
    for step in range(8):
        attempts = []
        for _ in range(6):
            is_fixed = draws.random() < 0.2 + 0.05 * step
            facts = Facts(a=float(is_fixed), b=0.8, c=draws.random())
            composed = 0.3 * a + 0.2 * b + 0.7 * c
            attempts.append(paid(composed, facts, is_resolved=is_fixed, broke=not is_fixed and facts.c > 0.8))
        steps.append({"step": step + 1, **component_numbers(attempts, [attempts[:3], attempts[3:]], ["no_op"])})
    audit = audit_steps("grpo", steps)
    assert (audit.steps, audit.groups, audit.different_groups) == (8, 16, 16)
    first, *_ = audit.components
    assert first.name == "c"
    by_name = {each.name: each for each in audit.components}
    assert by_name["a"].first == pytest.approx((steps[0]["reward/a/mean"] + steps[1]["reward/a/mean"]) / 2)
    assert sum(each.share or 0.0 for each in audit.components) == pytest.approx(1.0)
    said = "\n".join(audit.findings)
    assert "b never differs within a group: it teaches nothing" in said
    assert "c decides in" in said
    assert "c is paid without a clean fix in" in said
    assert "no_op" not in said, "what never happened"
    assert "a is paid" not in said
    nothing = audit_steps("grpo", [{"step": 1, **component_numbers([paid(a, Facts())] * 4, [[paid(a, Facts())] * 4])}])
    assert nothing.findings == ("the attempts of all 1 groups were paid the same: the reward taught nothing",)
