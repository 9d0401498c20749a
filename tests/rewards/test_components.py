"""The built-in rewards: their definitions, their bounds, and that breaking something never pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrade.rewards import (
    AssuranceLevel,
    BuildRun,
    ComplexityDelta,
    Diff,
    End,
    EvidenceSet,
    Finding,
    FunctionComplexity,
    Impact,
    ImpactedModule,
    Integrity,
    LintDelta,
    Tampering,
    TestOutcome,
    TestRun,
    TestStatus,
    Verification,
    builds,
    complexity,
    default,
    generalizes,
    impact,
    refactoring,
    simplified,
    small_diff,
    style,
    untampered,
)
from regrade.rewards import tests as outcome  # pytest takes a callable of the name `tests` for a test

PASSED, FAILED, SKIPPED = TestStatus.PASSED, TestStatus.FAILED, TestStatus.SKIPPED
MISSING, UNREACHED = TestStatus.MISSING, TestStatus.UNREACHED
MakeRun = Callable[..., TestRun]


@st.composite
def runs(draw: st.DrawFn) -> TestRun:
    wanted = [f"tests/test_a.py::wanted_{index}" for index in range(draw(st.integers(0, 4)))]
    kept = [f"tests/test_b.py::kept_{index}" for index in range(draw(st.integers(0, 6)))]
    statuses = st.sampled_from(list(TestStatus))
    outcomes = {test: TestOutcome(draw(statuses), draw(st.text(max_size=5))) for test in wanted + kept}
    return TestRun(outcomes=outcomes, fail_to_pass=tuple(wanted), pass_to_pass=tuple(kept))


@given(runs())
def test_tests_stay_in_bounds_and_only_a_clean_fix_is_worth_one(run: TestRun) -> None:
    score = outcome(run)
    if not run.outcomes:
        assert score.value is None
        return
    assert score.value is not None
    assert 0.0 <= score.value <= 1.0
    assert (score.value == 1.0) == run.resolved
    if not run.resolved:
        assert score.value <= 0.2


@given(runs(), st.data())
def test_tests_never_rise_when_a_passing_test_breaks(run: TestRun, data: st.DataObject) -> None:
    passing = [test for test, outcome in run.outcomes.items() if outcome.status in (PASSED, UNREACHED)]
    if not passing:
        return
    test = data.draw(st.sampled_from(passing))
    for status in (FAILED, SKIPPED, MISSING, TestStatus.ERROR, TestStatus.XFAILED):
        worse = TestRun(
            outcomes={**run.outcomes, test: TestOutcome(status)},
            fail_to_pass=run.fail_to_pass,
            pass_to_pass=run.pass_to_pass,
        )
        before, after = outcome(run).value, outcome(worse).value
        assert before is not None
        assert after is not None
        assert after <= before


@given(runs(), st.sampled_from([end for end in End if end is not End.COMPLETED]))
def test_a_run_that_the_patch_stopped_is_worth_nothing(run: TestRun, end: End) -> None:
    stopped = TestRun(
        outcomes=run.outcomes,
        fail_to_pass=run.fail_to_pass,
        pass_to_pass=run.pass_to_pass,
        end=end,
        detail="beyond 60 s",
    )
    assert outcome(stopped).value == 0.0
    assert end.value in outcome(stopped).why
    assert outcome.evaluate(EvidenceSet({TestRun: stopped})).cause == f"{end.value}: beyond 60 s"


def test_tests_by_definition(run: MakeRun) -> None:
    assert outcome(run({"w": PASSED}, {"k": PASSED})).value == 1.0
    assert outcome(run({"w": FAILED}, {"k": PASSED})).value == 0.0, "doing nothing is worth nothing"
    assert outcome(run({"w": PASSED, "x": FAILED}, {"k": PASSED})).value == pytest.approx(0.1)
    assert outcome(run({"w": PASSED}, {"k": FAILED, "l": PASSED})).value == pytest.approx(0.05)
    assert outcome(run({"w": PASSED}, {"k": SKIPPED})).value == 0.0, "a skipped test has not passed"
    assert outcome(run({"w": PASSED}, {"k": UNREACHED})).value == 1.0
    assert outcome(run({"w": MISSING}, {"k": PASSED})).value == 0.0, "missing is not passing"
    assert outcome(run({}, {"k": PASSED})).value == 1.0, "nothing was asked to be fixed"
    assert outcome(run()).value is None


def test_the_reason_names_a_broken_test_and_its_message(run: MakeRun) -> None:
    why = outcome(run({"w": FAILED}, {"tests/test_x.py::test_y": FAILED, "k": PASSED})).why
    assert why.startswith(
        "fixes 0 of 1 FAIL_TO_PASS, breaks 1 of 2 PASS_TO_PASS; tests/test_x.py::test_y failed: assert 1 == 2"
    )


def test_the_line_of_a_failing_test_is_told_apart_from_its_error() -> None:
    message = "t.py:6: assert add(1, 2) == 3\nassert -1 == 3\n +  where -1 = add(1, 2)"
    run = TestRun(outcomes={"t.py::t": TestOutcome(FAILED, message)}, fail_to_pass=(), pass_to_pass=("t.py::t",))
    assert outcome(run).why.endswith("t.py:6: assert add(1, 2) == 3 | assert -1 == 3 | + where -1 = add(1, 2)")


def test_builds() -> None:
    assert builds(BuildRun(True, 3)).value == 1.0
    failed = builds(BuildRun(False, 3, "a.py:2: SyntaxError: invalid syntax"))
    assert (failed.value, failed.why) == (0.0, "a.py:2: SyntaxError: invalid syntax")
    assert builds(BuildRun(True, 0)).value is None


def test_untampered_closes_on_what_only_a_cheat_needs() -> None:
    cheat = Tampering("leaves at import", "a.py", 3, "calls os._exit when the module is imported")
    odd = Tampering("reads frames", "a.py", 4, "reads .f_back", conclusive=False)
    assert untampered(Integrity(())).value == 1.0
    assert untampered(Integrity((odd,), ("tests/test_a.py",))).value == 1.0
    assert "tests/test_a.py" in untampered(Integrity((odd,), ("tests/test_a.py",))).why
    closed = untampered(Integrity((cheat, cheat, odd)))
    assert closed.value == 0.0
    assert "a.py:3" in closed.why
    assert "1 more sign" in closed.why


def test_small_diff() -> None:
    assert small_diff(Diff(0, 0, ())).value is None
    assert small_diff(Diff(2, 2, ("a.py",))).value == 1.0, "the size of a usual fix costs nothing"
    assert small_diff(Diff(12, 12, ("a.py",))).value == 0.5
    assert small_diff(Diff(12, 12, ("a.py",), reference_lines=24)).value == 1.0, "nor does that of the reference"
    assert small_diff(Diff(0, 0, ("renamed.py",))).value == 1.0


def finding(rule: str, line: int = 1) -> Finding:
    return Finding(rule, "a.py", line, f"message of {rule}")


def test_style_counts_findings_rule_by_rule() -> None:
    assert style(LintDelta((), (), 0)).value is None
    assert style(LintDelta((), (), 4)).value == 1.0
    assert style(LintDelta((finding("F401"), finding("E711")), (), 4)).value == 0.5
    assert style(LintDelta((finding("F401"),), (finding("F401"),), 4)).value == 1.0
    assert style(LintDelta((finding("F821"),), (finding("E501"), finding("E501")), 4)).value == pytest.approx(2 / 3)
    assert style(LintDelta((), (), 4, unparsable=("a.py",))).value == 0.0
    assert "F401 in a.py:7: message of F401" in style(LintDelta((finding("F401", 7),), (), 4)).why


@given(st.lists(st.sampled_from("ABC"), max_size=6), st.lists(st.sampled_from("ABC"), max_size=6), st.integers(1, 999))
def test_style_is_not_diluted_by_length_and_never_rises_with_a_finding(
    added: list[str], removed: list[str], lines: int
) -> None:
    old, new = tuple(map(finding, removed)), tuple(map(finding, added))
    value = style(LintDelta(new, old, lines)).value
    assert value == style(LintDelta(new, old, 1)).value
    assert value is not None
    assert 0.0 < value <= 1.0
    for rule in "ABC":
        worse = style(LintDelta((*new, finding(rule)), old, lines)).value
        assert worse is not None
        assert worse <= value


def test_complexity_looks_at_sum_and_maximum() -> None:
    files = ("a.py",)
    branch = FunctionComplexity("a.py", "f", 3, 5)
    assert complexity(ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0)).value is None
    assert (
        complexity(
            ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0, files=files)
        ).value
        == 1.0
    )
    assert complexity(
        ComplexityDelta(functions=(branch,), sum_before=3, sum_after=5, max_before=3, max_after=5, files=files)
    ).value == pytest.approx(10 / 12), "a branch is free"
    for free, value in ((0, 10 / 14), (3, 10 / 11), (4, 1.0), (9, 1.0)):
        grown = ComplexityDelta(
            functions=(branch,),
            sum_before=3,
            sum_after=5,
            max_before=3,
            max_after=5,
            files=files,
            reference_growth=free,
        )
        assert complexity(grown).value == pytest.approx(value), "growth that the reference needs is free"
    assert (
        "f in a.py: 3 -> 5"
        in complexity(
            ComplexityDelta(functions=(branch,), sum_before=3, sum_after=5, max_before=3, max_after=5, files=files)
        ).why
    )
    helpers = tuple(FunctionComplexity("a.py", f"_h{index}", None, 3) for index in range(4))
    split = ComplexityDelta(
        functions=(FunctionComplexity("a.py", "f", 8, 2), *helpers),
        sum_before=8,
        sum_after=14,
        max_before=8,
        max_after=3,
        files=files,
    )
    assert complexity(split).value == pytest.approx(10 / 14), "splitting does not pay"
    assert (
        complexity(
            ComplexityDelta(
                functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0, unparsable=("a.py",), files=files
            )
        ).value
        == 0.0
    )


def reached(module: str, weight: float = 1.0, tests: tuple[str, ...] = (), dangling: tuple[str, ...] = ()) -> Impact:
    return Impact(
        changed_symbols=("e.py::f",),
        modules=(
            ImpactedModule(
                module=module, hops=1, weight=weight, path=("e.py::f", module), tests=tests, dangling=dangling
            ),
        ),
    )


def test_impact_by_definition(run: MakeRun) -> None:
    good = run({"tests/test_m.py::w": PASSED}, {"tests/test_m.py::k": PASSED})
    bad = run({"tests/test_m.py::w": PASSED}, {"tests/test_m.py::k": FAILED})
    assert impact(Impact(changed_symbols=(), modules=()), good).value is None
    assert impact(reached("m.py", tests=("tests/test_m.py",)), good).value == 1.0
    assert impact(reached("m.py"), good).value == 0.5, "unverified"
    broken = impact(reached("m.py", tests=("tests/test_m.py",)), bad)
    assert broken.value == 0.0
    assert "e.py::f -> m.py -> tests/test_m.py (broken)" in broken.why
    dangling = impact(reached("m.py", tests=("tests/test_m.py",), dangling=("e.py::f",)), good)
    assert dangling.value == 0.0
    assert "e.py::f, which the patch removes" in dangling.why
    assert impact(Impact(changed_symbols=(), modules=(), unparsable=("e.py",)), good).value == 0.0


def test_of_several_changes_the_one_that_is_nearest_to_the_broken_test_is_named(run: MakeRun) -> None:
    def why(*modules: ImpactedModule) -> str:
        nearest = (("e.py::f", ("tests/test_m.py::good",)), ("e.py::g", ("tests/test_m.py::bad",)))
        bad = run({}, {"tests/test_m.py::good": PASSED, "tests/test_m.py::bad[1]": FAILED})
        return impact(Impact(changed_symbols=("e.py::f", "e.py::g"), modules=modules, nearest=nearest), bad).why

    heavy = ImpactedModule(module="m.py", hops=1, weight=1.0, path=("e.py::f", "m.py"), tests=("tests/test_m.py",))
    light = ImpactedModule(module="n.py", hops=1, weight=0.5, path=("e.py::g", "n.py"), tests=("tests/test_m.py",))
    assert why(heavy).endswith("; e.py::g -> tests/test_m.py (broken)")
    assert why(heavy, light).endswith("; e.py::g -> n.py -> tests/test_m.py (broken)")


def test_impact_weighs_modules_and_charges_cycles(run: MakeRun) -> None:
    good = run({}, {"tests/test_m.py::k": PASSED})
    heavy, light = reached("m.py", 1.0, ("tests/test_m.py",)), reached("n.py", 0.25)
    both = Impact(changed_symbols=("e.py::f",), modules=heavy.modules + light.modules)
    assert impact(both, good).value == pytest.approx(1 - 0.125 / 1.25)
    cyclic = Impact(changed_symbols=both.changed_symbols, modules=both.modules, new_cycles=(("a.py", "b.py", "a.py"),))
    assert impact(cyclic, good).value == pytest.approx(1 - 0.125 / 1.25 - 0.1)
    alone = impact(Impact(changed_symbols=(), modules=(), new_cycles=(("a.py", "b.py", "a.py"),)), good)
    assert alone.value == pytest.approx(0.9)
    assert "a.py -> b.py -> a.py" in alone.why


@given(runs(), st.lists(st.tuples(st.floats(0.01, 1), st.booleans(), st.booleans()), max_size=5), st.data())
def test_impact_stays_in_bounds_and_never_rises_when_a_test_breaks(
    run: TestRun, modules: list[tuple[float, bool, bool]], data: st.DataObject
) -> None:
    files = ("tests/test_a.py", "tests/test_b.py")
    reach = Impact(
        changed_symbols=(),
        modules=tuple(
            ImpactedModule(
                module=f"m{index}.py",
                hops=1,
                weight=weight,
                path=("e.py::f", f"m{index}.py"),
                tests=files if is_tested else (),
                dangling=("e.py::g",) if dangles else (),
            )
            for index, (weight, is_tested, dangles) in enumerate(modules)
        ),
    )
    value = impact(reach, run).value
    assert (value is None) == (not modules)
    passing = [test for test in run.pass_to_pass if run.outcomes[test].status is PASSED]
    if value is None or not passing:
        return
    assert 0.0 <= value <= 1.0
    outcomes = {**run.outcomes, data.draw(st.sampled_from(passing)): TestOutcome(FAILED)}
    worse = impact(
        reach, TestRun(outcomes=outcomes, fail_to_pass=run.fail_to_pass, pass_to_pass=run.pass_to_pass)
    ).value
    assert worse is not None
    assert worse <= value


def evidence(run: TestRun, **changed: object) -> EvidenceSet:
    records: dict[type, object] = {
        TestRun: run,
        Diff: Diff(2, 1, ("a.py",)),
        BuildRun: BuildRun(True, 1),
        Integrity: Integrity(()),
        LintDelta: LintDelta((), (), 3),
        ComplexityDelta: ComplexityDelta(
            functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0, files=("a.py",)
        ),
        Impact: Impact(changed_symbols=(), modules=()),
    }
    return EvidenceSet({**records, **{type(record): record for record in changed.values()}})


def test_the_default_reward_on_a_good_a_useless_a_breaking_and_a_broken_patch(run: MakeRun) -> None:
    good = default.evaluate(evidence(run({"w": PASSED}, {"k": PASSED})))
    useless = default.evaluate(evidence(run({"w": FAILED}, {"k": PASSED})))
    breaking = default.evaluate(evidence(run({"w": PASSED}, {"k": FAILED})))
    broken = default.evaluate(evidence(run({"w": MISSING}, {"k": MISSING}), build=BuildRun(False, 1, "a.py:1: no")))
    assert good.value is not None
    assert useless.value is not None
    assert breaking.value is not None
    assert good.value > 0.9
    assert good.value > breaking.value + 0.5
    assert good.value > useless.value + 0.5
    assert (broken.value, broken.cause) == (0.0, "builds: a.py:1: no")


def test_the_default_reward_of_doing_nothing_is_zero(run: MakeRun) -> None:
    nothing = default.evaluate(
        evidence(
            run({"w": FAILED}, {"k": PASSED}),
            diff=Diff(0, 0, ()),
            build=BuildRun(True, 0),
            lint=LintDelta((), (), 0),
            complexity=ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0),
        )
    )
    assert nothing.value == 0.0


@given(runs())
def test_the_default_reward_stays_in_bounds(run: TestRun) -> None:
    value = default.evaluate(evidence(run)).value
    assert value is not None
    assert 0.0 <= value <= 1.0 + 1e-12


def test_hard_coded_answers_do_not_generalize_and_an_edge_of_the_domain_costs_its_share() -> None:
    def verified(wrong: int, corrected: int) -> Verification:
        level = AssuranceLevel.OUT_OF_PROCESS
        return Verification(level=level, reachable="held-out", inputs=40, wrong_at_base=wrong, corrected=corrected)

    assert generalizes(verified(31, 0)).value == 0.0
    assert generalizes(verified(20, 16)).value == 0.8
    assert "16 of 20 held-out inputs" in generalizes(verified(20, 16)).why
    assert generalizes(verified(1, 1)).value == 1.0
    assert generalizes(verified(0, 0)).value is None


def test_simplified_is_the_share_of_the_asked_drop() -> None:
    nothing = ComplexityDelta(functions=(), sum_before=0, sum_after=0, max_before=0, max_after=0)

    def delta(before: int | None, after: int | None) -> ComplexityDelta:
        changed = FunctionComplexity("a.py", "f", before, after)
        return replace(nothing, target=changed)

    assert simplified(delta(20, 15)).value == 1.0, "a quarter"
    assert simplified(delta(20, 18)).value == pytest.approx(0.4)
    assert simplified(delta(11, 8)).value == 1.0, "at least three"
    assert simplified(delta(20, 25)).value == simplified(delta(20, 20)).value == 0.0
    split = (FunctionComplexity("a.py", "g", None, 16), FunctionComplexity("a.py", "h", 30, 12))
    assert simplified(replace(delta(20, 4), functions=split)).value == pytest.approx(0.8), "the new function counts"
    assert simplified(delta(20, None)).value == 0.0, "a function that is gone is not simpler"
    assert simplified(nothing).value is None
    assert simplified(replace(nothing, unparsable=("a.py",))).value == 0.0
    assert refactoring.needs >= {ComplexityDelta, TestRun}
