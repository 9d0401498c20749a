"""The built-in rewards: each a definition, a scale in [0, 1] and a reason in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from regrade.datasets.node_ids import file_of
from regrade.datasets.plurals import counted
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
    Prediction,
    Readability,
    ReadabilityDelta,
    TestRun,
    TestStatus,
)
from regrade.rewards.score import Score

PARTIAL = 0.2
"""What fixing every FAIL_TO_PASS test is worth while the task is not resolved. Small, so that progress is seen and
nothing short of a clean fix is attractive: found to work in training (0.2 x share fixed, breakage charged)."""


@reward
def tests(run: TestRun) -> Score:
    """1 if every FAIL_TO_PASS test passes and no PASS_TO_PASS test is broken, else partial credit.

    Partial credit is 0.2 x F while nothing is broken and 0.1 x F x (1 - B) otherwise, where F is the share of
    FAIL_TO_PASS tests that pass and B the share of PASS_TO_PASS tests that no longer do. So doing nothing is worth 0,
    breaking a passing test never raises the value, and a fix that breaks something stays far below a clean one.
    A run that the patch stopped (time, memory, a crash, a patch that does not apply) is worth 0.
    Without FAIL_TO_PASS tests nothing was asked to be fixed: F is then 1.
    """
    if run.end is not End.COMPLETED:
        return Score(0.0, f"the run ended early ({run.end.value}){f': {run.detail}' if run.detail else ''}")
    if not run.outcomes:
        return Score.unscored("the task has no tests")
    if run.resolved:
        return Score(1.0, _tally(run))
    fixed = len(run.fixed) / len(run.fail_to_pass) if run.fail_to_pass else 1.0
    broken = len(run.broken) / len(run.pass_to_pass) if run.pass_to_pass else 0.0
    value = PARTIAL * fixed if not run.broken else 0.5 * PARTIAL * fixed * (1.0 - broken)
    return Score(value, f"{_tally(run)}; {_first_failure(run)}")


@reward
def resolved(run: TestRun) -> Score:
    """1 if every FAIL_TO_PASS test passes and no PASS_TO_PASS test is broken, else 0.

    A gate for what must not pay alone.
    """
    if not run.outcomes and run.end is End.COMPLETED:
        return Score.unscored("the task has no tests")
    if run.end is not End.COMPLETED:
        return Score(0.0, f"the run ended early ({run.end.value})")
    return Score(float(run.resolved), _tally(run))


@reward
def builds(build: BuildRun) -> Score:
    """1 if the patched tree byte-compiles, imports and makes a wheel, else 0.

    The wheel is built where the change can matter to it (a file that comes or goes, data, a version) and the
    environment has the project's build backend. Not applicable where the patch touches no source and no wheel was
    built.
    """
    if not build.ok:
        return Score(0.0, build.error or "does not build")
    if build.checked_files == 0 and not build.wheel:
        return Score.unscored("no source file to build")
    wheel = ", the wheel built" if build.wheel else ""
    return Score(1.0, f"{counted(build.checked_files, 'file')} compiled{wheel}")


@reward
def untampered(integrity: Integrity) -> Score:
    """1 unless the patch reaches for the verdict: then 0, naming file and line.

    Edits to tests and configuration are no tampering by themselves: the run never sees them. Signs that honest code
    shows as well are named in the reason and close nothing.
    """
    grave = [sign for sign in integrity.signs if sign.conclusive]
    if grave:
        first = grave[0]
        more = f" (and {counted(len(grave) - 1, 'more sign')})" if len(grave) > 1 else ""
        return Score(0.0, f"{first.kind} in {first.file}:{first.line}: {first.detail}{more}")
    notes = [f"{sign.kind} in {sign.file}:{sign.line}, as honest code may" for sign in integrity.signs[:1]]
    if integrity.ignored_files:
        notes.append(
            f"{counted(len(integrity.ignored_files), 'file')} without a say, as tests and configuration are the "
            f"base's: {', '.join(integrity.ignored_files[:3])}{', ...' if len(integrity.ignored_files) > 3 else ''}"
        )
    return Score(1.0, "; ".join(notes) or "nothing reaches for the verdict")


@reward
def small_diff(diff: Diff) -> Score:
    """50 / (50 + changed lines): 1 for the smallest change, 1/2 at 50 lines; not applicable to an empty patch."""
    if diff.is_empty:
        return Score.unscored("the patch changes nothing that counts")
    return Score(50 / (50 + diff.changed_lines), f"{counted(diff.changed_lines, 'line')} changed")


@reward
def style(lint: LintDelta) -> Score:
    """2 / (2 + n), where n counts the lint findings that the patch adds beyond those of the same rule that it removes.

    It counts findings, not findings per line, so that a longer patch dilutes nothing. 0 for a file that ruff cannot
    read; not applicable where no Python file changed.
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
    firsts = [next(finding for finding in lint.added if finding.rule == rule) for rule in list(net)[:3]]
    named = "; ".join(f"{each.rule} in {each.file}:{each.line}: {each.message}" for each in firsts)
    others = ", ".join(f"{rule} x {number}" for rule, number in list(net.items())[3:])
    said = "; ".join(filter(None, (named, others)))
    return Score(2 / (2 + count), f"{counted(count, 'new lint finding')}{rules}: {said}")


@reward
def complexity(delta: ComplexityDelta) -> Score:
    """10 / (10 + s + m): s and m are the growth of the sum and of the maximum of cyclomatic complexity, at least 0.

    Sum and maximum, not the mean, so that splitting a function into helpers or hiding a branch in another does not
    pay. 0 for a file that cannot be parsed; not applicable where no source file changed.
    """
    if delta.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(delta.unparsable)}")
    if not delta.files:
        return Score.unscored("no source file changed")
    total, largest = delta.sum_after - delta.sum_before, delta.max_after - delta.max_before
    if not delta.functions:
        return Score(1.0, "the complexity of no function changed")
    worst = max(delta.functions, key=lambda function: (function.after or 0) - (function.before or 0))
    before, after = (str(count) if count is not None else "none" for count in (worst.before, worst.after))
    value = 10 / (10 + max(0, total) + max(0, largest))
    return Score(value, f"sum {total:+d}, maximum {largest:+d}; {worst.function} in {worst.file}: {before} -> {after}")


@reward
def readability(delta: ReadabilityDelta) -> Score:
    """1 / (1 + c/10 + v/1000 + d/50) for the functions that changed.

    c and v are what cognitive complexity and Halstead volume (bits) grew by, in sum plus in maximum, each at least 0;
    d is what the lowest maintainability index lost. Sums and maxima, so that splitting a function or hiding it in
    another does not pay; making code easier to read than it was pays no more than leaving it so. 0 for a file that
    cannot be parsed; not applicable where no Python file changed.
    """
    if delta.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(delta.unparsable)}")
    if not delta.files:
        return Score.unscored("no Python file changed")
    if not delta.functions:
        return Score(1.0, "every function is as easy to read as it was")
    old = [function.before for function in delta.functions if function.before is not None]
    new = [function.after for function in delta.functions if function.after is not None]
    cognitive = _growth([each.cognitive for each in old], [each.cognitive for each in new])
    volume = _growth([each.volume for each in old], [each.volume for each in new])
    before, after = (min((each.maintainability for each in side), default=100.0) for side in (old, new))
    value = 1 / (1 + sum(cognitive) / 10 + sum(volume) / 1000 + max(0.0, before - after) / 50)
    return Score(value, f"{_reading_in_words(delta, old, new)}; lowest maintainability {before:.0f} -> {after:.0f}")


@reward
def impact(reach: Impact, run: TestRun) -> Score:
    """How much of the patch's reach over other modules was resolved: 1 - sum(I u) / sum(I), less 0.1 per new cycle.

    I is the weight of an impacted module (see `ImpactedModule.weight`). u is 1 where a test that reaches the module
    broke, or where the module imports a name that is gone; 0 where a test that reaches it passes; 0.5 where nothing
    verifies it. A test file that uses a name that is gone counts as one more module with I = u = 1, and against no
    other. So a wide but verified change costs nothing. Not applicable where nothing depends on what changed. 0 for a
    file that cannot be parsed.
    """
    if reach.unparsable:
        return Score(0.0, f"cannot be parsed: {', '.join(reach.unparsable)}")
    lost = dict(reach.dangling_tests)
    total = sum(module.weight for module in reach.modules) + len(lost)
    if total <= 0.0:
        return _cycles_only(reach)
    broken = {file for test in run.broken if (file := file_of(test)) not in lost}
    doubts = [(module, _doubt(module, broken, run.verified_files)) for module in reach.modules]
    value = 1.0 - (sum(module.weight * doubt for module, doubt in doubts) + len(lost)) / total
    value = min(1.0, max(0.0, value - 0.1 * len(reach.new_cycles)))
    return Score(value, _reach_in_words(doubts, [test for test in run.broken if file_of(test) in broken], reach))


@reward
def learned(prediction: Prediction) -> Score:
    """The probability that the patch is verified, as a reward model sees it, less its doubt (at least 0).

    The lower end of an interval and not the middle: what the model has hardly seen must not pay. It spares executions,
    and certifies nothing: never a gate, never alone. Not applicable where the patch can't be put to the model.
    """
    if prediction.resolved is None:
        return Score.unscored(f"{prediction.model}: {prediction.why}")
    value = min(1.0, max(0.0, prediction.resolved - prediction.doubt))
    return Score(
        value, f"{prediction.model} expects {prediction.resolved:.2f} \N{PLUS-MINUS SIGN} {prediction.doubt:.2f}"
    )


def _growth(old: Sequence[float], new: Sequence[float]) -> tuple[float, float]:
    """What the sum and the maximum grew by, each at least 0."""
    return max(0.0, sum(new) - sum(old)), max(0.0, max(new, default=0) - max(old, default=0))


def _reading_in_words(delta: ReadabilityDelta, old: list[Readability], new: list[Readability]) -> str:
    def cost(function: FunctionReadability) -> float:
        sides = [side.cognitive + side.volume / 100 if side else 0.0 for side in (function.before, function.after)]
        return sides[1] - sides[0]

    worst = max(delta.functions, key=cost)
    was, now = (str(side.cognitive) if side else "none" for side in (worst.before, worst.after))
    said = []
    for name, sides in (
        ("cognitive complexity", [[each.cognitive for each in side] for side in (old, new)]),
        ("Halstead volume", [[each.volume for each in side] for side in (old, new)]),
    ):
        means = [sum(side) / max(1, len(side)) for side in sides]
        said.append(f"{name} {sum(sides[1]) - sum(sides[0]):+.0f} (mean {means[0]:.1f} -> {means[1]:.1f})")
    return f"{', '.join(said)}; {worst.function} in {worst.file}: {was} -> {now}"


def _tally(run: TestRun) -> str:
    wanted = f"fixed {len(run.fixed)} of {len(run.fail_to_pass)}" if run.fail_to_pass else "no test was to be mended"
    return f"{wanted}, broke {len(run.broken) or 'none'} of {len(run.pass_to_pass)}"


def _first_failure(run: TestRun) -> str:
    unfixed = [test for test in run.fail_to_pass if run.outcomes[test].status is not TestStatus.PASSED]
    test = [*run.broken, *unfixed][0]
    outcome = run.outcomes[test]
    lines = (" ".join(line.split()) for line in outcome.message[:2000].splitlines())
    message = " | ".join(filter(None, lines))[:200]
    return f"{test} {outcome.status.value}{f': {message}' if message else ''}"


def _doubt(module: ImpactedModule, broken: set[str], good: frozenset[str]) -> float:
    if module.dangling or broken.intersection(module.tests):
        return 1.0
    return 0.0 if good.intersection(module.tests) else 0.5


def _cycles_only(reach: Impact) -> Score:
    if not reach.new_cycles:
        return Score.unscored("no other module depends on what changed")
    return Score(max(0.0, 1.0 - 0.1 * len(reach.new_cycles)), _cycles_in_words(reach))


def _reach_in_words(doubts: list[tuple[ImpactedModule, float]], broken: list[str], reach: Impact) -> str:
    verified = sum(1 for _, doubt in doubts if doubt == 0.0)
    said = [f"{counted(len(doubts), 'module')} reached, {verified} verified by tests"]
    said += [f"{test} uses {name}, which is gone" for test, name in reach.dangling_tests[:1]]
    if not doubts:
        return "; ".join(said)
    module, doubt = max(doubts, key=lambda pair: (pair[0].weight * pair[1], pair[0].weight))
    way = " -> ".join(module.path)
    if module.dangling:
        said.append(f"{module.module} imports {', '.join(module.dangling)}, which is gone ({way})")
    elif doubt == 1.0:
        said.append(_breakage_in_words([module for module, doubt in doubts if doubt == 1.0], broken, reach))
    elif doubt:
        said.append(f"unverified: {way}")
    else:
        said.append(f"{way} -> {module.tests[0]}")
    return "; ".join(said + ([_cycles_in_words(reach)] if reach.new_cycles else []))


def _breakage_in_words(modules: list[ImpactedModule], broken: list[str], reach: Impact) -> str:
    """The way from a changed symbol to a test that broke: of several, from the one that is nearest to the test."""
    causes: dict[str, set[str]] = {}
    for test in broken:
        causes.setdefault(file_of(test), set()).add(reach.cause_of(test))
    heaviest = sorted(modules, key=lambda module: -module.weight)
    ways = [(module.path, file) for module in heaviest for file in sorted(causes.keys() & set(module.tests))]
    apt = [(path, file) for path, file in ways if causes[file] & {"", path[0]}]
    path, file = (apt or ways)[0]
    return f"{' -> '.join(path) if apt else min(causes[file])} -> {file}, which broke"


def _cycles_in_words(reach: Impact) -> str:
    return f"{counted(len(reach.new_cycles), 'new import cycle')}: {' -> '.join(reach.new_cycles[0])}"
