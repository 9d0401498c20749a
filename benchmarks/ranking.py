"""Does the default reward order patches as an experienced engineer does? Bugs in real packages, patches for each.

`ranking.toml` holds the bugs, the patches and the order. The packages are those of the ready-made tasks, fetched by
version and digest. The tests that fail are measured: the whole suite runs with the bug. Each patch must then be what
its kind says (`KINDS`); if one is not, the exit status is 1. Printed is the share of the pairs that a reward orders as
the engineer does (a tie counts half), and the mean value of each kind. Five rewards judge the same evidence:

    before          the default reward before the size of a usual fix was free
    default         today's
    no reference    today's, for a task without a reference patch
    assured         today's, closed for fixes whose verdict falls short of the level that the task allows
    generalizes     today's, closed for patches that correct fewer than half of the held-out inputs

    python benchmarks/ranking.py                                    # every patch, ten minutes on two cores
    python benchmarks/ranking.py --packages funcy,toolz             # nothing is recorded
    python benchmarks/ranking.py --cache /tmp/ranking               # a second time from the stored evidence
    python benchmarks/ranking.py --patches 12                       # whole bugs, up to so many patches; the same
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from _latest import record

from regrade.datasets.mutation.packages import fetch_all, package
from regrade.datasets.mutation.rebuilding import measured_suite
from regrade.datasets.mutation.recipe_format import PackageRecipes, read_recipes
from regrade.datasets.patches import Patch
from regrade.datasets.sources import BUILTIN
from regrade.datasets.tasks import Limits, Task, Tree
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards import (
    Reward,
    Score,
    builds,
    default,
    generalizes,
    impact,
    resolved,
    reward,
    style,
    tests,
    untampered,
)
from regrade.rewards.evidence import ComplexityDelta, Diff, EvidenceSet, LintDelta, TestRun, Verification

FILE = Path(__file__).with_name("ranking.toml")
Edit = tuple[str, str]
"""(text that occurs once in the file, text in its place)"""


# ---------------------------------------------------------------- the data


@dataclass(frozen=True)
class Candidate:
    """One patch for a bug."""

    name: str
    kind: str
    edits: tuple[Edit, ...]


@dataclass(frozen=True, kw_only=True)
class Bug:
    """A bug of ours in a package, the patches for it, and their order."""

    package: str
    file: str
    function: str
    planting: Edit
    """(upstream's text, the text with the bug)"""
    candidates: tuple[Candidate, ...]
    pairs: tuple[tuple[str, str], ...]
    """(better, worse): names of candidates."""
    held_out: bool


def read_bugs(path: Path = FILE) -> list[Bug]:
    return [_bug(entry) for entry in tomllib.loads(path.read_text("utf-8"))["bugs"]]


def _bug(entry: Mapping[str, Any]) -> Bug:
    upstream, buggy = entry["upstream"], entry["bug"]
    candidates = [Candidate("upstream", "right", ((buggy, upstream),))]
    for name, patch in entry["patches"].items():
        edits = [(buggy, patch["text"])] if "text" in patch else []
        edits += [(edit["old"], edit["new"]) for edit in patch.get("edits", ())]
        candidates.append(Candidate(name, patch.get("kind", name), tuple(edits)))
    return Bug(
        package=entry["package"],
        file=entry["file"],
        function=entry["function"],
        planting=(upstream, buggy),
        candidates=tuple(candidates),
        pairs=tuple(dict.fromkeys(pair for chain in entry["order"] for pair in _pairs(chain))),
        held_out=entry.get("held_out", False),
    )


def _pairs(chain: str) -> Iterator[tuple[str, str]]:
    """`a b > c` -> (a, c), (b, c): names beside each other are not compared."""
    for better, worse in combinations([step.split() for step in chain.split(">")], 2):
        yield from ((one, other) for one in better for other in worse)


def edited(text: str, edits: Iterable[Edit]) -> str:
    for old, new in edits:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} must occur once in the file, not {text.count(old)} times")
        text = text.replace(old, new)
    return text


# ---------------------------------------------------------------- what each kind must be


def _is_resolved(evidence: EvidenceSet) -> bool:
    return run_of(evidence).resolved


def _is_half(evidence: EvidenceSet) -> bool:
    run = run_of(evidence)
    return 0 < len(run.fixed) < len(run.fail_to_pass) and not run.broken


def _is_lazy(evidence: EvidenceSet) -> bool:
    """Tests may see through it or not."""
    return bool(run_of(evidence).fixed) and not run_of(evidence).broken


def _breaks(evidence: EvidenceSet) -> bool:
    return bool(run_of(evidence).fixed and run_of(evidence).broken)


def _does_nothing(evidence: EvidenceSet) -> bool:
    return not run_of(evidence).fixed and not run_of(evidence).broken


def _has_findings(evidence: EvidenceSet) -> bool:
    lint = evidence.records[LintDelta]
    assert isinstance(lint, LintDelta)
    return _is_resolved(evidence) and bool(lint.added)


def _is_large(evidence: EvidenceSet) -> bool:
    return _is_resolved(evidence) and 25 <= _excess(evidence) <= 65


def _has_leftovers(evidence: EvidenceSet) -> bool:
    return _is_resolved(evidence) and _excess(evidence) < 25


def _excess(evidence: EvidenceSet) -> int:
    """Changed lines beyond those of upstream's fix."""
    diff = evidence.records[Diff]
    assert isinstance(diff, Diff)
    return diff.changed_lines - (diff.reference_lines or 0)


KINDS: Mapping[str, Callable[[EvidenceSet], bool]] = {
    "right": _is_resolved,
    "otherwise": _is_resolved,
    "style": _has_findings,
    "leftover": _has_leftovers,
    "engineered": _is_large,
    "half": _is_half,
    "lazy": _is_lazy,
    "breaking": _breaks,
    "comment": _does_nothing,
}
"""Kind -> is this patch of that kind? `otherwise` is another right fix than upstream's; `leftover` is a right fix with
a few needless branches and names."""


def run_of(evidence: EvidenceSet) -> TestRun:
    found = evidence.records[TestRun]
    assert isinstance(found, TestRun), found
    return found


# ---------------------------------------------------------------- the default reward before


@reward
def earlier_small_diff(diff: Diff) -> Score:
    """50 / (50 + changed lines)."""
    return Score.unscored("empty") if diff.is_empty else Score(50 / (50 + diff.changed_lines), "size")


@reward
def earlier_complexity(delta: ComplexityDelta) -> Score:
    """10 / (10 + growth): no growth is free, not even the reference's."""
    if delta.unparsable:
        return Score(0.0, "cannot be parsed")
    if not delta.files:
        return Score.unscored("no source file changed")
    return Score(10 / (10 + delta.growth) if delta.functions else 1.0, "growth")


_quality = 0.5 * impact + 0.25 * style + 0.125 * earlier_complexity + 0.125 * earlier_small_diff
earlier: Reward = (
    (0.7 * tests + 0.3 * _quality.only_if(resolved).named("quality")).only_if(builds, untampered).named("earlier")
)
"""The default reward before the size of a usual fix was free, for comparison.

Only the formulas are the old ones, the evidence is today's. That of the static probes of then differs for three of the
84 patches, by two changed lines each.
"""


def without_reference(evidence: EvidenceSet) -> EvidenceSet:
    """The evidence of a task that has no reference patch."""
    records = dict(evidence.records)
    for kind, field in ((Diff, "reference_lines"), (ComplexityDelta, "reference_growth")):
        if isinstance(records.get(kind), kind):
            records[kind] = replace(records[kind], **{field: None})
    return replace(evidence, records=records)


@reward
def undisputed(run: TestRun, verification: Verification) -> Score:
    """0 for a fix whose verdict falls short of the assurance level of the task's reference, else 1."""
    if not run.resolved or not verification.reachable or verification.reaches(verification.reachable):
        return Score(1.0, "not disputed")
    return Score(0.0, f"{verification.level} only: {verification.why}")


assured_default = default.only_if(undisputed).named("assured")
general_default = default.only_if(generalizes.at_least(0.5)).named("general")


def value_of(judge: Reward, evidence: EvidenceSet) -> float:
    value = judge.evaluate(evidence).value
    if value is None:
        raise SystemExit(f"error: a patch has no value: {judge.evaluate(evidence).cause}; run the benchmark again")
    return value


JUDGES: Mapping[str, Callable[[EvidenceSet], float]] = {
    "before": lambda evidence: value_of(earlier, evidence),
    "default": lambda evidence: value_of(default, evidence),
    "no reference": lambda evidence: value_of(default, without_reference(evidence)),
    "assured": lambda evidence: value_of(assured_default, evidence),
    "generalizes": lambda evidence: value_of(general_default, evidence),
}
"""Column -> value of a patch."""
JUDGED = ("default", "generalizes")
"""Those whose wrong pairs are listed."""


# ---------------------------------------------------------------- running


def gather(bugs: Sequence[Bug], scorer: Scorer) -> list[dict[str, EvidenceSet]]:
    """The evidence of every candidate, by name, for each bug."""
    recipes = {name: read_recipes(BUILTIN / f"{name}.json") for name in {bug.package for bug in bugs}}
    roots = fetch_all([each.package for each in recipes.values()])
    pristine = [_task(bug, recipes[bug.package], Tree(roots[bug.package])) for bug in bugs]
    planted = [_patch(task.base, bug, [bug.planting]) for bug, task in zip(bugs, pristine, strict=True)]
    broken = scorer.gather(list(zip(pristine, planted, strict=True)), tests.needs)
    jobs: list[tuple[Task, Patch]] = []
    for bug, task, evidence in zip(bugs, pristine, broken, strict=True):
        failing = run_of(evidence).broken
        assert failing, f"no test fails with the bug in {bug.package}, {bug.function}"
        base = task.base.with_files({bug.file: edited(task.base.read(bug.file), [bug.planting])})
        upstream = _patch(base, bug, bug.candidates[0].edits)
        buggy = _task(bug, recipes[bug.package], base, failing, upstream)
        jobs += [(buggy, _patch(base, bug, candidate.edits)) for candidate in bug.candidates]
    found = iter(scorer.gather(jobs, assured_default.needs | earlier.needs, progress=_progress))
    return [{candidate.name: next(found) for candidate in bug.candidates} for bug in bugs]


def _task(
    bug: Bug, recipes: PackageRecipes, base: Tree, failing: tuple[str, ...] = (), reference: Patch | None = None
) -> Task:
    return Task(
        id=f"{bug.package}/{bug.function}",
        repository=bug.package,
        base=base,
        instruction=f"Some tests fail because of a bug in `{bug.function}` in `{bug.file}`: fix it.",
        fail_to_pass=failing,
        pass_to_pass=tuple(test for test in recipes.tests if test not in set(failing)),
        suite=measured_suite(recipes),
        requirements=recipes.package.requirements,
        limits=Limits(wall_seconds=recipes.package.wall_seconds),
        reference=reference,
    )


def _patch(base: Tree, bug: Bug, edits: Iterable[Edit]) -> Patch:
    before = base.read(bug.file)
    return Patch.between({bug.file: before}, {bug.file: edited(before, edits)})


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() or done % 20 == 0 or done == total:
        print(f"ranking: {done} of {total}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------- shares


@dataclass(frozen=True)
class Pair:
    """A pair of patches, and their values by each of `JUDGES`."""

    bug: Bug
    better: Candidate
    worse: Candidate
    values: Mapping[str, tuple[float, float]]
    """Column -> (value of the better one, value of the worse one)."""

    def credit(self, judge: str) -> float:
        """1 in the right order, 0.5 for a tie, else 0. Values that differ by rounding alone are a tie."""
        better, worse = (round(value, 9) for value in self.values[judge])
        return 0.5 if better == worse else float(better > worse)


def pairs_of(bug: Bug, evidence: Mapping[str, EvidenceSet]) -> Iterator[Pair]:
    named = {candidate.name: candidate for candidate in bug.candidates}
    values = {name: {judge: value(found) for judge, value in JUDGES.items()} for name, found in evidence.items()}
    for better, worse in bug.pairs:
        both = {judge: (values[better][judge], values[worse][judge]) for judge in JUDGES}
        yield Pair(bug, named[better], named[worse], both)


def share(pairs: Sequence[Pair], judge: str) -> float:
    """The share of the pairs in the right order."""
    return sum(pair.credit(judge) for pair in pairs) / len(pairs)


def grouped(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Heading -> pairs: each package, packages for tuning weights, packages held out, all, all without lazy patches."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.bug.package + " (held out)" * pair.bug.held_out, []).append(pair)
    tuned = [pair for pair in pairs if not pair.bug.held_out]
    held_out = [pair for pair in pairs if pair.bug.held_out]
    not_lazy = [pair for pair in pairs if pair.worse.kind != "lazy"]
    totals = {"packages for tuning": tuned, "packages held out": held_out, "all": pairs, "all, none lazy": not_lazy}
    return groups | {name: list(group) for name, group in totals.items() if group}


def by_kinds(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs that not every judge orders, by the kinds of their patches."""
    groups: dict[str, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(f"{pair.better.kind} > {pair.worse.kind}", []).append(pair)
    return {name: group for name, group in groups.items() if any(share(group, judge) < 1.0 for judge in JUDGES)}


def print_shares(groups: Mapping[str, Sequence[Pair]], heading: str) -> None:
    print(f"\n{heading:28} {'pairs':>6} " + " ".join(f"{judge:>12}" for judge in JUDGES))
    for name, group in groups.items():
        print(f"{name:28} {len(group):6} " + " ".join(f"{share(group, judge):12.3f}" for judge in JUDGES))


def print_means(bugs: Sequence[Bug], found: Sequence[Mapping[str, EvidenceSet]]) -> dict[str, dict[str, float]]:
    """The mean value of the patches of each kind: how far apart the kinds are, which shares do not show."""
    kinds: dict[str, list[EvidenceSet]] = {kind: [] for kind in KINDS}
    for bug, evidence in zip(bugs, found, strict=True):
        for candidate in bug.candidates:
            kinds[candidate.kind].append(evidence[candidate.name])
    print(f"\n{'mean value':28} {'count':>6} " + " ".join(f"{judge:>12}" for judge in JUDGES))
    means = {}
    for kind, group in kinds.items():
        if group:
            means[kind] = {judge: round(statistics.mean(map(value, group)), 4) for judge, value in JUDGES.items()}
            print(f"{kind:28} {len(group):6} " + " ".join(f"{mean:12.3f}" for mean in means[kind].values()))
    return means


def print_patches(bug: Bug, evidence: Mapping[str, EvidenceSet]) -> list[str]:
    """Prints how each patch did. Returns those that are not what their kind says."""
    first = run_of(evidence["upstream"])
    held_out = " (held out)" * bug.held_out
    print(f"\n{bug.package}, {bug.function}{held_out}: {len(first.fail_to_pass)} tests fail; {', '.join(JUDGES)}")
    wrong = []
    for candidate in bug.candidates:
        found = evidence[candidate.name]
        run = run_of(found)
        told = f"{len(run.fixed)} fixed, {len(run.broken)} broken"
        is_right = KINDS[candidate.kind](found)
        values = " ".join(f"{value(found):.3f}" for value in JUDGES.values())
        print(f"  {candidate.name:12} {values}  {told}{'' if is_right else f'  NOT {candidate.kind}'}")
        if not is_right:
            wrong.append(f"{bug.package}, {bug.function}, {candidate.name}: not {candidate.kind}: {told}")
    return wrong


def chosen_bugs(bugs: Sequence[Bug], packages: str, patches: int | None) -> list[Bug]:
    """The bugs of the named packages, up to so many patches; at least one bug."""
    for name in filter(None, packages.split(",")):
        package(name)
    chosen: list[Bug] = []
    for bug in bugs:
        count = sum(len(each.candidates) for each in [*chosen, bug])
        if (not packages or bug.package in packages.split(",")) and (patches is None or not chosen or count <= patches):
            chosen.append(bug)
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", default="", help="names, separated by commas; all of them without this")
    parser.add_argument("--patches", type=int, default=None, help="at most so many, in whole bugs")
    parser.add_argument("--sandbox", default="auto")
    parser.add_argument("--cache", type=Path, help="folder that keeps the evidence: other weights then need no run")
    options = parser.parse_args()
    bugs = read_bugs()
    chosen = chosen_bugs(bugs, options.packages, options.patches)
    if not chosen:
        parser.error(f"no bug in {options.packages}; there are some in {', '.join(bug.package for bug in bugs)}")
    with (
        tempfile.TemporaryDirectory(prefix="regrade-ranking-") as folder,
        Scorer(sandbox=options.sandbox, cache=options.cache or Path(folder)) as scorer,
    ):
        found = gather(chosen, scorer)
    wrong = [line for bug, evidence in zip(chosen, found, strict=True) for line in print_patches(bug, evidence)]
    pairs = [pair for bug, evidence in zip(chosen, found, strict=True) for pair in pairs_of(bug, evidence)]
    groups = grouped(pairs)
    print_shares(groups, "package")
    print_shares(by_kinds(pairs), "kinds, where not all is right")
    means = print_means(chosen, found)
    for judge in JUDGED:
        print(f"\nnot in the engineer's order by {judge}:")
        for pair in pairs:
            if pair.credit(judge) < 1.0:
                better, worse = pair.values[judge]
                where = f"{pair.bug.package}, {pair.bug.function}"
                print(f"  {where}: {pair.better.name} > {pair.worse.name}: {better:.3f} against {worse:.3f}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    if not wrong and chosen == bugs:
        shares = {
            name: {"pairs": len(group)} | {judge: round(share(group, judge), 4) for judge in JUDGES}
            for name, group in groups.items()
        }
        record("ranking", {"patches": sum(len(bug.candidates) for bug in bugs), "shares": shares, "means": means})
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
