"""The data of the ranking benchmark is consistent, and a part of it really runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import ranking

from regrade.datasets.mutation.packages import package
from regrade.datasets.sources import BUILTIN
from regrade.evaluators.scoring.scorer import Scorer
from regrade.rewards.evidence import ComplexityDelta, Diff, EvidenceSet

BUGS = ranking.read_bugs()
each_bug = pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.package}-{bug.function}")


@each_bug
def test_the_package_is_pinned_and_its_library_code_has_the_bug(bug: ranking.Bug) -> None:
    assert (BUILTIN / f"{bug.package}.json").is_file()
    subject = package(bug.package).subject
    assert any(bug.file == each or bug.file.startswith(f"{each}/") for each in subject)


@each_bug
def test_every_edit_applies_once_and_no_two_patches_are_equal(bug: ranking.Bug) -> None:
    upstream, buggy = bug.planting
    assert ranking.edited(upstream, [bug.planting]) == buggy
    # Further edits are in lines around the bug, which are not stored: a file of these lines and the bug stands in.
    around = dict.fromkeys(old for candidate in bug.candidates for old, _ in candidate.edits if old != buggy)
    base = "".join([*around, buggy])
    texts = [base, *(ranking.edited(base, candidate.edits) for candidate in bug.candidates)]
    assert len(set(texts)) == len(texts)


@each_bug
def test_every_patch_is_in_a_pair_and_no_order_is_a_circle(bug: ranking.Bug) -> None:
    names = [candidate.name for candidate in bug.candidates]
    assert {candidate.kind for candidate in bug.candidates} <= ranking.KINDS.keys()
    assert {name for pair in bug.pairs for name in pair} == set(names), "a patch that is in no pair, or an unknown name"
    better = {name: {worse for one, worse in bug.pairs if one == name} for name in names}
    while better:
        last = [name for name, worse in better.items() if not worse & better.keys()]
        assert last, f"a circle among {', '.join(better)}"
        better = {name: worse for name, worse in better.items() if name not in last}


def test_a_third_of_the_packages_is_held_out() -> None:
    packages = {bug.package for bug in BUGS}
    held_out = {bug.package for bug in BUGS if bug.held_out}
    assert 0.2 <= len(held_out) / len(packages) <= 0.4
    assert not held_out & {bug.package for bug in BUGS if not bug.held_out}


def test_an_edit_that_does_not_occur_once_is_refused() -> None:
    with pytest.raises(ValueError, match="2 times"):
        ranking.edited("a a", [("a", "b")])
    with pytest.raises(ValueError, match="0 times"):
        ranking.edited("a", [("c", "b")])


def test_an_order_compares_across_steps_only() -> None:
    assert list(ranking._pairs("a b > c > d")) == [("a", "c"), ("b", "c"), ("a", "d"), ("b", "d"), ("c", "d")]


def test_a_tie_counts_half() -> None:
    bug = BUGS[0]
    values = {"worse": (0.5, 0.9), "tie": (0.1 + 0.2, 0.3), "better": (0.9, 0.5)}
    pair = ranking.Pair(bug, bug.candidates[0], bug.candidates[1], values)
    assert [ranking.share([pair], judge) for judge in values] == [0.0, 0.5, 1.0]


def test_evidence_without_reference_keeps_all_else() -> None:
    diff = Diff(added_lines=3, removed_lines=2, files=("a.py",), reference_lines=9)
    assert ranking.without_reference(EvidenceSet({Diff: diff})) == EvidenceSet(
        {Diff: Diff(added_lines=3, removed_lines=2, files=("a.py",))}
    )
    assert ComplexityDelta not in ranking.without_reference(EvidenceSet({Diff: diff})).records


@pytest.mark.slow
def test_patches_are_of_their_kinds_and_held_out_inputs_tell_hard_coded_answers(tmp_path: Path) -> None:
    names = {"upstream", "engineered", "half", "lazy"}
    bug = next(bug for bug in BUGS if bug.function == "ceil")
    few = replace(
        bug,
        candidates=tuple(each for each in bug.candidates if each.name in names),
        pairs=tuple(pair for pair in bug.pairs if names.issuperset(pair)),
    )
    with Scorer(workers=2, cache=tmp_path) as scorer:
        (evidence,) = ranking.gather([few], scorer)
    assert ranking.print_patches(few, evidence) == []
    pairs = list(ranking.pairs_of(few, evidence))
    assert len(pairs) == 6
    for judge in ("before", "default", "no reference"):
        wrong = {(pair.better.name, pair.worse.name) for pair in pairs if pair.credit(judge) < 1.0}
        assert {("engineered", "lazy"), ("half", "lazy")} <= wrong <= {(name, "lazy") for name in names}
    assert ranking.share(pairs, "assured") == ranking.share(pairs, "generalizes") == 1.0
