"""Properties of the algebra, over compositions and evidence that hypothesis invents."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.rewards import Breakdown, EvidenceSet, Part, Reward, RewardError, Role, Score, minimum, reward


@dataclass(frozen=True)
class First:
    value: float | None


@dataclass(frozen=True)
class Second:
    value: float | None


@dataclass(frozen=True)
class Third:
    value: float | None


KINDS = (First, Second, Third)


@reward
def first(evidence: First) -> Score:
    return Score(evidence.value, "as given")


@reward
def second(evidence: Second) -> Score:
    return Score(evidence.value, "as given")


@reward
def third(evidence: Third) -> Score:
    return Score(evidence.value, "as given")


LEAVES = (first, second, third)
values = st.one_of(st.none(), st.floats(0, 1))
evidence_sets = st.builds(
    lambda a, b, c: EvidenceSet({First: First(a), Second: Second(b), Third: Third(c)}), values, values, values
)


def compositions() -> st.SearchStrategy[Reward]:
    weights = st.floats(0, 2, allow_subnormal=False)

    def wider(inner: st.SearchStrategy[Reward]) -> st.SearchStrategy[Reward]:
        limits = st.tuples(st.floats(0, 0.5), st.floats(0.5, 1))
        return st.one_of(
            st.builds(lambda weight, a, b: weight * a + 0.5 * b, weights, inner, inner),
            st.builds(lambda a, b: a.only_if(b), inner, inner),
            st.builds(lambda a, pair: a.clip(*pair), inner, limits),
            st.builds(lambda a, threshold: a.at_least(threshold), inner, st.floats(0, 1)),
            st.builds(minimum, inner, inner),
            st.builds(lambda a: a.named("part"), inner),
        )

    return st.recursive(st.sampled_from(LEAVES), wider, max_leaves=8)


def of(a: float | None = None, b: float | None = None, c: float | None = None) -> EvidenceSet:
    return EvidenceSet({First: First(a), Second: Second(b), Third: Third(c)})


def added_up(part: Part) -> bool:
    children = math.fsum(child.contribution for child in part.parts)
    return (not part.parts or abs(children - part.contribution) <= 1e-9) and all(map(added_up, part.parts))


@given(compositions(), evidence_sets)
def test_contributions_add_up_on_every_level(composed: Reward, evidence: EvidenceSet) -> None:
    breakdown = composed.evaluate(evidence)
    total = math.fsum(part.contribution for part in breakdown.parts)
    assert abs(total - (breakdown.value or 0.0)) <= 1e-9
    assert all(map(added_up, breakdown.parts))


@given(compositions(), evidence_sets)
def test_a_value_is_scored_and_no_value_has_a_cause(composed: Reward, evidence: EvidenceSet) -> None:
    breakdown = composed.evaluate(evidence)
    assert breakdown.status == ("unscored" if breakdown.value is None else "scored")
    if breakdown.value is None:
        assert breakdown.cause
    else:
        assert math.isfinite(breakdown.value)
        assert breakdown.value >= 0.0


@given(compositions(), evidence_sets)
def test_evaluation_repeats_itself_and_survives_json_and_pickle(composed: Reward, evidence: EvidenceSet) -> None:
    breakdown = composed.evaluate(evidence)
    assert composed.evaluate(evidence) == breakdown
    assert Breakdown.from_json(json.loads(json.dumps(breakdown.to_json()))) == breakdown
    assert str(breakdown).count("\n") == sum(1 for _ in breakdown.walk()) + 1 + bool(breakdown.not_excluded)
    assert pickle.loads(pickle.dumps(composed)).name == composed.name


@given(compositions(), evidence_sets, st.sampled_from(KINDS))
def test_evidence_that_could_not_be_gathered_leaves_the_whole_unscored(
    composed: Reward, evidence: EvidenceSet, kind: type
) -> None:
    records = {each: record for each, record in evidence.records.items() if each is not kind}
    broken = EvidenceSet(records, {kind: "the disk is full"})
    breakdown = composed.evaluate(broken)
    if kind in composed.needs:
        assert breakdown.value is None
        assert breakdown.cause == f"{kind.__name__}: the disk is full"
    else:
        assert breakdown == composed.evaluate(evidence)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_a_sum_is_the_weighted_sum(a: float, b: float, wa: float, wb: float) -> None:
    assert (wa * first + wb * second).evaluate(of(a, b)).value == pytest.approx(wa * a + wb * b)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_an_inapplicable_part_hands_its_weight_on(a: float, b: float, wa: float, wb: float, wc: float) -> None:
    breakdown = (wa * first + wb * second + wc * third).evaluate(of(a, b, None))
    total = wa + wb + wc
    assert breakdown.value == pytest.approx(total * (wa * a + wb * b) / (wa + wb))
    assert sum(part.weight for part in breakdown.parts) == pytest.approx(total)
    assert breakdown.parts[2] == Part("third", None, 0.0, 0.0, "as given")


def test_nothing_applicable_is_unscored_and_says_so() -> None:
    breakdown = (0.5 * first + 0.5 * second).evaluate(of())
    assert (breakdown.value, breakdown.status) == (None, "unscored")
    assert breakdown.cause == "not applicable: first: as given; second: as given"


def test_a_part_of_weight_zero_counts_nothing() -> None:
    assert (0 * first + 1 * second).evaluate(of(1.0, 0.25)).value == 0.25
    assert (0 * first + 1 * second).evaluate(of(1.0, None)).value is None


@pytest.mark.parametrize(("gate", "value"), [(1.0, 0.7), (0.999, 0.0), (0.0, 0.0), (None, 0.7)])
def test_a_gate_is_open_at_one_or_where_it_does_not_apply(gate: float | None, value: float) -> None:
    breakdown = first.only_if(second).evaluate(of(0.7, gate))
    assert breakdown.value == value
    assert [part.name for part in breakdown.parts] == ["first", "second"]
    assert breakdown.parts[1].role is Role.GATE
    assert (breakdown.cause is None) == (value > 0)


def test_under_a_closed_gate_parts_keep_their_values_and_contribute_nothing() -> None:
    breakdown = (0.5 * first + 0.5 * second).only_if(third).evaluate(of(1.0, 0.5, 0.0))
    assert breakdown.value == 0.0
    assert breakdown.cause == "third: as given"
    assert [(part.value, part.weight, part.contribution) for part in breakdown.parts] == [
        (1.0, 0.5, 0.0),
        (0.5, 0.5, 0.0),
        (0.0, 0.0, 0.0),
    ]
    assert "gated: 0" in str(breakdown)


def test_a_closed_gate_scores_zero_even_where_the_rest_does_not_apply() -> None:
    assert first.only_if(second).evaluate(of(None, 0.0)).value == 0.0
    assert first.only_if(second).evaluate(of(None, 1.0)).value is None


def test_a_threshold_makes_a_gate() -> None:
    gated = first.only_if(second.at_least(0.5))
    assert gated.evaluate(of(0.7, 0.5)).value == 0.7
    assert gated.evaluate(of(0.7, 0.4)).value == 0.0


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0.5, 1))
def test_clipping_keeps_within_its_limits(a: float, low: float, high: float) -> None:
    value = first.clip(low, high).evaluate(of(a)).value
    assert value is not None
    assert low <= value <= high
    assert value == (a if low <= a <= high else pytest.approx(min(max(a, low), high)))


def test_clipping_shows_what_it_changed() -> None:
    breakdown = (2 * first).clip(0, 1).evaluate(of(0.75))
    assert breakdown.value == 1.0
    assert [(part.name, part.contribution) for part in breakdown.parts] == [("first", 1.5), ("clip(0, 1)", -0.5)]


@given(values, values)
def test_a_minimum_leaves_out_what_does_not_apply(a: float | None, b: float | None) -> None:
    given_values = [value for value in (a, b) if value is not None]
    assert minimum(first, second).evaluate(of(a, b)).value == (min(given_values) if given_values else None)


def test_parentheses_and_names_keep_parts_together() -> None:
    quality = (0.5 * second + 0.5 * third).named("quality")
    grouped = (0.6 * first + 0.4 * quality).evaluate(of(1.0, 1.0, None))
    assert [part.name for part in grouped.parts] == ["first", "quality"]
    assert grouped.parts[1].parts[0].weight == pytest.approx(0.4)
    flat = (0.6 * first + 0.2 * second + 0.2 * third).evaluate(of(1.0, 1.0, None))
    assert [part.name for part in flat.parts] == ["first", "second", "third"]
    assert flat.parts[0].weight == pytest.approx(0.75)


@pytest.mark.parametrize("inner", [first, 0.5 * first + 0.5 * second, first.only_if(second)], ids=str)
def test_a_name_and_gates_say_the_same_whichever_comes_first(inner: Reward) -> None:
    named_first, gated_first = inner.named("quality").only_if(third), inner.only_if(third).named("quality")
    assert named_first.name == gated_first.name == "quality"
    assert inner.named("quality").only_if(second).only_if(third).name == "quality"
    for gate in (0.0, 1.0):
        evidence = EvidenceSet({First: First(0.5), Second: Second(1.0), Third: Third(gate)})
        assert named_first.evaluate(evidence) == gated_first.evaluate(evidence)
        assert (0.3 * named_first + 0.7 * first).evaluate(evidence) == (0.3 * gated_first + 0.7 * first).evaluate(
            evidence
        )
    (part, *_) = (0.3 * named_first + 0.7 * first).evaluate(evidence).parts
    assert [(each.name, each.role) for each in part.parts][-1] == ("third", Role.GATE)


def test_arithmetic_reads_as_arithmetic() -> None:
    assert ((first + second) / 2).evaluate(of(1.0, 0.0)).value == 0.5
    assert sum([0.5 * first, 0.5 * second]).evaluate(of(1.0, 0.0)).value == 0.5
    assert (first * 0.5).evaluate(of(1.0)).value == 0.5
    assert (0.6 * first + 0.4 * second).name == "0.6 * first + 0.4 * second"
    assert (0.6 * first + 0.4 * second).needs == {First, Second}


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), "heavy"])
def test_a_weight_is_a_finite_number_that_is_not_negative(weight: object) -> None:
    with pytest.raises(RewardError, match="first: a weight must be"):
        weight * first  # type: ignore[operator]


def test_wrong_compositions_are_refused_at_once() -> None:
    with pytest.raises(TypeError):
        first + 1  # type: ignore[operator]
    with pytest.raises(TypeError):
        first * second  # type: ignore[operator]
    with pytest.raises(RewardError, match="a gate of only_if is"):
        first.only_if(len)  # type: ignore[arg-type]
    with pytest.raises(RewardError, match="lower limit"):
        first.clip(1, 0)
    with pytest.raises(RewardError, match="at least one"):
        minimum()


def test_a_scored_breakdown_says_what_was_not_gathered() -> None:
    breakdown = (first + second).evaluate(EvidenceSet({First: First(1.0)}))
    assert breakdown.value is None
    assert breakdown.cause == "Second: was not gathered"
    assert "unscored" in str(breakdown)


def test_the_assurance_of_the_evidence_is_handed_on() -> None:
    evidence = EvidenceSet({First: First(1.0)}, assurance="held-out")
    assert first.evaluate(evidence).assurance == "held-out"


def test_otherwise_gives_a_value_where_a_reward_is_not_applicable():
    @reward
    def optional(item: First) -> Score:
        return Score.unscored("nothing to measure") if item.value is None else Score(item.value)

    @reward
    def half(item: First) -> Score:
        return Score(0.5, f"of {item}")

    absent, present = EvidenceSet({First: First(None)}), EvidenceSet({First: First(0.5)})
    assert (0.5 * optional + 0.5 * half).evaluate(absent).value == 0.5
    filled = 0.5 * optional.otherwise(1.0) + 0.5 * half.otherwise(1.0)
    breakdown = filled.evaluate(absent)
    assert (breakdown.value, filled.evaluate(present).value) == (0.75, 0.5)
    assert [part.name for part in breakdown.parts] == ["optional", "half"]
    assert "nothing to measure" in breakdown.parts[0].why
    with pytest.raises(RewardError, match="from 0 to 1"):
        optional.otherwise(1.5)
