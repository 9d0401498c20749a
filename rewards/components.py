"""The built-in rewards: each with a definition, a scale in [0, 1] and a reason in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

from regrade.datasets.node_ids import file_of
from regrade.datasets.plurals import counted, listed
from regrade.rewards.algebra import reward
from regrade.rewards.evidence import (
    BuildRun,
    ComplexityDelta,
    Diff,
    End,
    FunctionReadability,
    Impact,
    ImpactedModule,
    Integrity,
    LintDelta,
    Readability,
    ReadabilityDelta,
    TestRun,
    TestStatus,
    Verification,
)
from regrade.rewards.score import Score

PARTIAL = 0.2
"""Value of fixing every FAIL_TO_PASS test while the task is not resolved. A small value shows progress and makes only a
clean fix attractive; it worked in training (0.2 x share fixed, less a charge for breakage)."""

USUAL_LINES = 4
"""Changed lines that cost nothing: the median of 395 fixes by maintainers (Sobreira et al. 2018, "Dissection of a Bug
Dataset", arXiv:1801.06393)."""
USUAL_GROWTH = 2
"""Growth of complexity that costs nothing without a reference: one branch in one function. A condition is among the
three most frequent additions in those fixes."""
GROWTH_OF_LARGE = 0.1
"""The same as a share of the complexity of the changed functions: in long functions, a fix has more places."""
LEAST_DROP, SHARE_OF_DROP = 3, 0.25
"""The drop of complexity that `simplified` asks for: the larger of a number of branches and a share of the complexity
before. A function above McCabe's limit of 10 gets to that of its simpler neighbours, and a single merged condition is
not enough."""
UNCHANGED, SOME_FIXED = 0.3, 0.75
"""Without FAIL_TO_PASS: the value of a patch that breaks nothing and fixes none of the tests that fail at the base; and
of one that fixes some, to which the share that it fixes adds up to 0.25. The step exceeds what quality can pay."""


@reward
def tests(run: TestRun) -> Score:
    """1 if every FAIL_TO_PASS test passes and no PASS_TO_PASS test is broken, else partial credit.

    Partial credit is 0.2 x F without breakage and 0.1 x F x (1 - B) with it, where F is the share of FAIL_TO_PASS tests
    that pass and B the share of broken PASS_TO_PASS tests. So an empty patch has the value 0, breaking a passing test
    never raises the value, and a fix with breakage stays far below a clean fix.
    A run that the patch stopped (time, memory, a crash, a patch that does not apply) has the value 0.
    Without FAIL_TO_PASS tests, F is 1; but if tests fail at the base, F is the share of these that pass, and a patch
    that breaks nothing has the value 0.3 if it fixes none of them, else 0.75 + 0.25 x F.
    """
    if run.end is not End.COMPLETED:
        return Score(0.0, f"the run ended early ({run.end.value}){f': {run.detail}' if run.detail else ''}")
    if not run.outcomes:
        return Score.unscored("the task has no tests")
    is_open = bool(run.unnamed) and not run.fail_to_pass
    share = len(run.also_fixed) / len(run.unnamed) if run.unnamed else 1.0
    if run.resolved:
        best = SOME_FIXED + (1.0 - SOME_FIXED) * share if run.also_fixed else UNCHANGED
        return Score(best if is_open else 1.0, _count_tests(run))
    partial = PARTIAL * len(run.fixed) / len(run.fail_to_pass) if run.fail_to_pass else PARTIAL * share
    broken = len(run.broken) / len(run.pass_to_pass) if run.pass_to_pass else 0.0
    value = partial if not run.broken else 0.5 * partial * (1.0 - broken)
    return Score(value, f"{_count_tests(run)}; {_first_failure(run)}")


@reward
def resolved(run: TestRun) -> Score:
    """1 if every FAIL_TO_PASS test passes and no PASS_TO_PASS test is broken, else 0.

    A gate for rewards that must not pay without a fix.
    """
    if not run.outcomes and run.end is End.COMPLETED:
        return Score.unscored("the task has no tests")
    if run.end is not End.COMPLETED:
        return Score(0.0, f"the run ended early ({run.end.value})")
    return Score(float(run.resolved), _count_tests(run))


@reward
def builds(build: BuildRun) -> Score:
    """1 if the patched tree byte-compiles, imports and makes a wheel, else 0.

    The wheel is built if the change can affect it (an added or deleted file, data, a version) and the environment has
    the project's build backend. Not applicable if the patch changes no source file and no wheel was built.
    """
    if not build.ok:
        return Score(0.0, build.error or "does not build")
    if build.checked_files == 0 and not build.wheel:
        return Score.unscored("no source file to build")
    wheel = ", wheel built" if build.wheel else ""
    return Score(1.0, f"{counted(build.checked_files, 'file')} compiled{wheel}")


@reward
def untampered(integrity: Integrity) -> Score:
    """1 unless the patch tampers with the evaluation, else 0; the reason names file and line.

    Edits to tests and configuration are no tampering by themselves: the run ignores them. The reason also names
    inconclusive signs, which honest code shows as well; they do not lower the value.
    """
    conclusive = [sign for sign in integrity.signs if sign.conclusive]
    if conclusive:
        first = conclusive[0]
        more = f" (and {counted(len(conclusive) - 1, 'more sign')})" if len(conclusive) > 1 else ""
        return Score(0.0, f"{first.kind} in {first.file}:{first.line}: {first.detail}{more}")
    notes = [f"inconclusive sign: {sign.kind} in {sign.file}:{sign.line}" for sign in integrity.signs[:1]]
    if ignored := integrity.ignored_files:
        files = f"{', '.join(ignored[:3])}{', ...' if len(ignored) > 3 else ''}"
        notes.append(f"{counted(len(ignored), 'edited file')} ignored (tests, configuration): {files}")
    return Score(1.0, "; ".join(notes) or "no sign of tampering")


@reward
def small_diff(diff: Diff) -> Score:
    """20 / (20 + n): n is the number of changed lines beyond 4, or beyond those of a longer reference patch.

    So the size of a usual fix costs nothing, and 20 superfluous lines halve the value. Not applicable to an empty
    patch.
    """
    if diff.is_empty:
        return Score.unscored("no file changed, apart from tests and configuration if any")
    usual = max(USUAL_LINES, diff.reference_lines or 0)
    return Score(
        20 / (20 + max(0, diff.changed_lines - usual)), f"{counted(diff.changed_lines, 'line')} changed, {usual} free"
    )


@reward
def style(lint: LintDelta) -> Score:
    """2 / (2 + n), where n is the number of added lint findings, less the removed findings of the same rule.

    It counts findings, not findings per line, so a longer patch dilutes nothing. 0 for a file that ruff cannot parse;
    not applicable if no Python file changed.
    """
    if lint.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(lint.unparsable)}")
    if lint.changed_lines == 0:
        return Score.unscored("no Python file changed")
    net = Counter(finding.rule for finding in lint.added) - Counter(finding.rule for finding in lint.removed)
    count = net.total()
    rules = f" by {lint.rules}" if lint.rules else ""
    if count == 0:
        return Score(1.0, f"no new lint finding{rules}")
    examples = [next(finding for finding in lint.added if finding.rule == rule) for rule in list(net)[:3]]
    details = [f"{finding.rule} in {finding.file}:{finding.line}: {finding.message}" for finding in examples]
    if len(net) > 3:
        details.append(", ".join(f"{rule} x {number}" for rule, number in list(net.items())[3:]))
    return Score(2 / (2 + count), f"{counted(count, 'new lint finding')}{rules}: {'; '.join(details)}")


@reward
def complexity(delta: ComplexityDelta) -> Score:
    """10 / (10 + g): g is the growth of cyclomatic complexity beyond the growth that a fix needs.

    The growth is that of the sum plus that of the maximum, each at least 0. A fix needs the growth of the reference
    patch: if the bug removed branches, it restores them. Without a reference, it needs 2 (a branch in one function), or
    a tenth of the complexity of the changed functions, if that is more.
    It uses sum and maximum, not the mean: splitting a function into helpers, or moving a branch into another function,
    does not pay. 0 for a file that cannot be parsed; not applicable if no source file changed.
    """
    if delta.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(delta.unparsable)}")
    if not delta.files:
        return Score.unscored("no source file changed")
    total, largest = delta.sum_after - delta.sum_before, delta.max_after - delta.max_before
    if not delta.functions:
        return Score(1.0, "complexity unchanged in every function")
    worst = max(delta.functions, key=lambda function: (function.after or 0) - (function.before or 0))
    before, after = (str(count) if count is not None else "none" for count in (worst.before, worst.after))
    value = 10 / (10 + max(0, delta.growth - _needed_growth(delta)))
    growth = f"sum {total:+d}, maximum {largest:+d}, {_needed_growth(delta)} free"
    return Score(value, f"{growth}; {worst.function} in {worst.file}: {before} -> {after}")


@reward
def simplified(delta: ComplexityDelta) -> Score:
    """min(1, d / n): d is the drop of the cyclomatic complexity of the function that the task names, n the drop asked.

    n is a quarter of the complexity before, rounded up, and at least 3. After the patch, the largest of the function
    itself and of all functions that the patch adds or makes more complex counts: moving the branches away is no drop,
    and splitting them is one. 0 if the function was removed or renamed. Not applicable if the task names no function.
    Never use it alone: deleting code lowers complexity too; `refactoring` adds the tests and `complexity`.
    """
    if delta.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(delta.unparsable)}")
    target = delta.target
    if target is None or target.before is None:
        return Score.unscored("the task names no function whose complexity can be measured")
    goal = asked_complexity(target.before)
    if target.after is None:
        return Score(0.0, f"{target.function} in {target.file} is gone: keep it, with a complexity of at most {goal}")
    grown = [one for one in delta.functions if one.after is not None and one.after > (one.before or 0)]
    largest = max([target, *grown], key=lambda one: one.after or 0)
    after = largest.after or 0
    value = min(1.0, max(0, target.before - after) / (target.before - goal))
    where = "" if largest is target else f" in {largest.function}"
    return Score(value, f"{target.function} in {target.file}: {target.before} -> {after}{where}, asked: {goal}")


def asked_complexity(before: int) -> int:
    """The complexity at which `simplified` is 1."""
    return before - max(LEAST_DROP, ceil(SHARE_OF_DROP * before))


@reward
def readability(delta: ReadabilityDelta) -> Score:
    """1 / (1 + c/10 + v/1000 + d/50) over the changed functions.

    c and v are the growth of cognitive complexity and of Halstead volume (bits): growth of the sum plus growth of the
    maximum, each at least 0. d is the decrease of the lowest maintainability index, at least 0. With sums and maxima,
    splitting a function or moving it into another does not pay. An improvement pays no more than unchanged
    readability. 0 for a file that cannot be parsed; not applicable if no Python file changed.
    """
    if delta.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(delta.unparsable)}")
    if not delta.files:
        return Score.unscored("no Python file changed")
    if not delta.functions:
        return Score(1.0, "readability unchanged in every function")
    old = [function.before for function in delta.functions if function.before is not None]
    new = [function.after for function in delta.functions if function.after is not None]
    cognitive = _growth([function.cognitive for function in old], [function.cognitive for function in new])
    volume = _growth([function.volume for function in old], [function.volume for function in new])
    before, after = (min((function.maintainability for function in side), default=100.0) for side in (old, new))
    value = 1 / (1 + sum(cognitive) / 10 + sum(volume) / 1000 + max(0.0, before - after) / 50)
    reason = _describe_readability(delta, old, new)
    return Score(value, f"{reason}; lowest maintainability {before:.0f} -> {after:.0f}")


@reward
def impact(reach: Impact, run: TestRun) -> Score:
    """The share of the patch's impact on other modules that tests verify: 1 - sum(I u) / sum(I), less 0.1 a new cycle.

    I is the weight of an impacted module (see `ImpactedModule.weight`). u is 1 if a test that reaches the module is
    broken, or if the module imports a removed name; 0 if a test that reaches it passes; 0.5 if no test verifies it.
    A test file that uses a removed name counts as one more module with I = u = 1, and not against any other module.
    So a wide but verified change costs nothing. Not applicable if no other module depends on the change. 0 for a file
    that cannot be parsed.
    """
    if reach.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(reach.unparsable)}")
    dangling_tests = dict(reach.dangling_tests)
    total = sum(module.weight for module in reach.modules) + len(dangling_tests)
    if total <= 0.0:
        return _score_cycles(reach)
    broken_files = {file for test in run.broken if (file := file_of(test)) not in dangling_tests}
    risks = [(module, _risk(module, broken_files, run.verified_files)) for module in reach.modules]
    value = 1.0 - (sum(module.weight * risk for module, risk in risks) + len(dangling_tests)) / total
    value = min(1.0, max(0.0, value - 0.1 * len(reach.new_cycles)))
    return Score(value, _describe_impact(risks, [test for test in run.broken if file_of(test) in broken_files], reach))


@reward
def generalizes(verification: Verification) -> Score:
    """The share of the held-out inputs that the base answers wrongly to which the patch gives the reference's answer.

    Answers that are hard-coded for the tests' inputs have a value near 0, a fix of the rule has a value near 1. Inputs
    for which a right fix may differ from the reference cost it no more than their share; so it is a gate that spares
    honest fixes: `default.only_if(generalizes.at_least(0.5))`. Not applicable if the task has no held-out inputs, or if
    the tests that the patch fixes do not pass out of process.
    """
    if verification.wrong_at_base <= 0:
        return Score.unscored("no held-out input was compared")
    value = min(1.0, max(0.0, verification.corrected / verification.wrong_at_base))
    wrong = counted(verification.wrong_at_base, "held-out input")
    return Score(value, f"right answers to {verification.corrected} of {wrong} that the base answers wrongly")


def _needed_growth(delta: ComplexityDelta) -> int:
    if delta.reference_growth is not None:
        return delta.reference_growth
    return max(USUAL_GROWTH, int(GROWTH_OF_LARGE * delta.sum_before))


def _growth(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """The growth of the sum and of the maximum, each at least 0."""
    return max(0.0, sum(new) - sum(old)), max(0.0, max(new, default=0) - max(old, default=0))


def _describe_readability(delta: ReadabilityDelta, old: list[Readability], new: list[Readability]) -> str:
    def cost(function: FunctionReadability) -> float:
        sides = [side.cognitive + side.volume / 100 if side else 0.0 for side in (function.before, function.after)]
        return sides[1] - sides[0]

    worst = max(delta.functions, key=cost)
    before, after = (str(side.cognitive) if side else "none" for side in (worst.before, worst.after))
    changes = []
    for name, sides in (
        ("cognitive complexity", [[function.cognitive for function in side] for side in (old, new)]),
        ("Halstead volume", [[function.volume for function in side] for side in (old, new)]),
    ):
        means = [sum(side) / max(1, len(side)) for side in sides]
        changes.append(f"{name} {sum(sides[1]) - sum(sides[0]):+.0f} (mean {means[0]:.1f} -> {means[1]:.1f})")
    return f"{', '.join(changes)}; {worst.function} in {worst.file}: {before} -> {after}"


def _count_tests(run: TestRun) -> str:
    total = len(run.fail_to_pass)
    fixed = f"fixes {len(run.fixed)} of {total} FAIL_TO_PASS" if total else "no FAIL_TO_PASS tests"
    broken = f"breaks {len(run.broken)} of {len(run.pass_to_pass)} PASS_TO_PASS"
    note = f"; {run.detail}" if run.detail and run.end is End.COMPLETED else ""
    return f"{fixed}, {broken}{note}{_describe_unnamed(run)}"


def _describe_unnamed(run: TestRun) -> str:
    """What becomes of the tests that fail at the base and that no FAIL_TO_PASS names."""
    if not run.unnamed:
        return ""
    also = "also " if run.fail_to_pass else ""
    count = len(run.unnamed)
    shown = listed(run.also_fixed or run.unnamed, 3)
    what = f"{counted(count, 'failing test')} that no FAIL_TO_PASS names"
    if run.also_fixed:
        return f"; {also}fixes {len(run.also_fixed)} of {what}: {shown}"
    return f"; fixes none of {what}: {shown}" if count > 1 else f"; does not fix {what}: {shown}"


def _first_failure(run: TestRun) -> str:
    unfixed = [test for test in run.fail_to_pass if run.outcomes[test].status is not TestStatus.PASSED]
    test = [*run.broken, *unfixed][0]
    outcome = run.outcomes[test]
    lines = (" ".join(line.split()) for line in outcome.message[:2000].splitlines())
    message = " | ".join(filter(None, lines))[:200]
    return f"{test} {outcome.status.value}{f': {message}' if message else ''}"


def _risk(module: ImpactedModule, broken_files: set[str], verified_files: frozenset[str]) -> float:
    if module.dangling or broken_files.intersection(module.tests):
        return 1.0
    return 0.0 if verified_files.intersection(module.tests) else 0.5


def _score_cycles(reach: Impact) -> Score:
    if not reach.new_cycles:
        return Score.unscored("no other module depends on the change")
    return Score(max(0.0, 1.0 - 0.1 * len(reach.new_cycles)), _describe_cycles(reach))


def _describe_impact(risks: list[tuple[ImpactedModule, float]], broken: list[str], reach: Impact) -> str:
    verified = sum(1 for _, risk in risks if risk == 0.0)
    reasons = [f"{counted(len(risks), 'dependent module')}, {verified} verified by tests"]
    reasons += [f"{test} uses {name}, which the patch removes" for test, name in reach.dangling_tests[:1]]
    if not risks:
        return "; ".join(reasons)
    module, risk = max(risks, key=lambda pair: (pair[0].weight * pair[1], pair[0].weight))
    path = " -> ".join(module.path)
    if module.dangling:
        reasons.append(f"{module.module} imports {', '.join(module.dangling)}, which the patch removes ({path})")
    elif risk == 1.0:
        reasons.append(_describe_breakage([module for module, risk in risks if risk == 1.0], broken, reach))
    elif risk:
        reasons.append(f"unverified: {path}")
    else:
        reasons.append(f"{path} -> {module.tests[0]}")
    return "; ".join(reasons + ([_describe_cycles(reach)] if reach.new_cycles else []))


def _describe_breakage(modules: list[ImpactedModule], broken: list[str], reach: Impact) -> str:
    """The path from a changed symbol to a broken test; with several symbols, from the nearest one."""
    causes: dict[str, set[str]] = {}
    for test in broken:
        causes.setdefault(file_of(test), set()).add(reach.cause_of(test))
    heaviest = sorted(modules, key=lambda module: -module.weight)
    paths = [(module.path, file) for module in heaviest for file in sorted(causes.keys() & set(module.tests))]
    caused = [(path, file) for path, file in paths if causes[file] & {"", *path[:1]}]
    path, file = (caused or paths)[0]
    return f"{' -> '.join(path) if caused else min(causes[file])} -> {file} (broken)"


def _describe_cycles(reach: Impact) -> str:
    return f"{counted(len(reach.new_cycles), 'new import cycle')}: {' -> '.join(reach.new_cycles[0])}"
