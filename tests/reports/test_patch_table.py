"""Several patches side by side: a line each, and totals that add up."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from regrade.reports.patch_table import PatchRow, print_patches, totals
from regrade.rewards import Breakdown, End, EvidenceSet, Reward, TestOutcome, TestRun, TestStatus, load_reward
from regrade.rewards.evidence import Integrity, Tampering

OUTCOME: Reward = load_reward("tests")
PASSED, FAILED = TestOutcome(TestStatus.PASSED), TestOutcome(TestStatus.FAILED, "assert 1 == 2")


def judged(name: str, wanted: str, kept: str, end: End = End.COMPLETED) -> PatchRow:
    """Tests that pass (`.`) or fail (`F`)."""
    ids = [tuple(f"t.py::{side}{place}" for place in range(len(text))) for side, text in (("w", wanted), ("k", kept))]
    outcomes = dict(zip((*ids[0], *ids[1]), (PASSED if each == "." else FAILED for each in wanted + kept), strict=True))
    run = TestRun(outcomes=outcomes, fail_to_pass=ids[0], pass_to_pass=ids[1], end=end)
    return PatchRow(name, OUTCOME.evaluate(EvidenceSet({TestRun: run})), run)


LOST = PatchRow("lost.diff", Breakdown(None, "unscored", "TestRun: OSError: no space left", "in-process"))
REFUSED = PatchRow("bad.diff", None, refusal="patch 'bad.diff': it is no diff")
PATCHES = [
    judged("good.diff", ".", ".."),
    judged("idle.diff", "F", ".."),
    judged("bold.diff", ".", ".F"),
    judged("bad\x1b[2J.diff", "F", "FF"),
    judged("hangs.diff", "F", "FF", End.TIMEOUT),
    REFUSED,
    LOST,
]


@pytest.mark.parametrize(
    ("patch", "verdict", "cause"),
    [
        (PATCHES[0], "fixed", ""),
        (PATCHES[1], "not fixed", "t.py::w0 failed"),
        (PATCHES[2], "fixed but breaks", "t.py::k1 failed"),
        (PATCHES[3], "breaks", "t.py::k0 failed"),
        (PATCHES[4], "timeout", "timeout"),
        (REFUSED, "refused", "it is no diff"),
        (LOST, "unscored", "TestRun: OSError: no space left"),
        (judged("a", "", ".."), "breaks nothing", ""),
        (
            replace(
                PATCHES[0],
                integrity=Integrity(
                    signs=(Tampering(kind="early exit", file="a.py", line=3, detail="os._exit", conclusive=True),)
                ),
            ),
            "tampers",
            "early exit in a.py:3: os._exit",
        ),
        (
            replace(
                PATCHES[0],
                integrity=Integrity(signs=(Tampering(kind="x", file="a.py", line=3, detail="y", conclusive=False),)),
            ),
            "fixed",
            "",
        ),
        (PatchRow("a", Breakdown(0.5, "scored", None, "in-process")), "scored", ""),
    ],
)
def test_a_verdict_is_what_the_tests_say(patch: PatchRow, verdict: str, cause: str) -> None:
    assert (patch.verdict, patch.cause) == (verdict, cause)


def test_a_narrow_console_cuts_causes_and_nothing_else() -> None:
    out = io.StringIO()
    print_patches([judged("a" * 50 + ".diff", ".", "F"), LOST], Console(file=out, width=60))
    _, first, second, third, _ = out.getvalue().splitlines()
    assert (first + second).replace(" ", "").count("a") >= 50
    assert "fixed but breaks" in first
    assert third.split()[:3] == ["lost.diff", "\N{EN DASH}", "unscored"]
    assert max(map(len, (first, second, third))) <= 60


def test_the_table_has_a_line_a_patch_and_the_totals() -> None:
    out = io.StringIO()
    print_patches(PATCHES, Console(file=out, width=120))
    head, *lines, last = out.getvalue().splitlines()
    assert head.split() == ["patch", "value", "verdict", "broken", "cause"]
    assert [line.split()[:2] for line in lines[:3]] == [
        ["good.diff", "1.000"],
        ["idle.diff", "0.000"],
        ["bold.diff", "0.050"],
    ]
    assert lines[2].split()[2:5] == ["fixed", "but", "breaks"]
    assert lines[5].split()[:4] == ["bad.diff", "\N{EN DASH}", "refused", "\N{EN DASH}"]
    assert "\x1b" not in out.getvalue()
    assert max(map(len, (head, *lines))) <= 120
    assert last == totals(PATCHES)
    assert last == (
        "7 patches: 1 fixed, 1 not fixed, 1 fixed but breaks, 1 breaks, 1 timeout, 1 refused, 1 unscored; "
        "mean value 0.210 of 5 scored"
    )
