"""What is said of hunks and their shares: every number, what happens without each, and nothing taken for markup."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

from rich.console import Console

from regrade.datasets.hunks import split_patch
from regrade.datasets.patches import Patch
from regrade.evaluators.attribution.results import Attribution, Cost, GroupShare, Smallest, Subset, Without
from regrade.evaluators.attribution.shapley import Share
from regrade.reports.explanation import explanation_html
from regrade.reports.hunks import CAVEAT, attribution_view, print_attribution
from regrade.rewards.breakdown import Breakdown, Part

BEFORE = "".join(f"v{number} = {number}\n" for number in range(30))
PATCH = Patch.between(
    {"m.py": BEFORE, "<b>.py": "x = '[red]'\n"}, {"m.py": BEFORE.replace("= 5\n", "= 6\n").replace("= 25\n", "= 26\n")}
)
HUNKS = split_patch(PATCH).hunks


def subset(value: float | None, cause: str = "", passes: bool | None = True) -> Subset:
    status = "scored" if value is not None else "unscored"
    return Subset(Breakdown(value, status, cause or None, parts=(Part("tests", value, 1.0, value or 0.0, ""),)), passes)


def group(number: int, share: Share, without: Without, why: str = "", alone: float | None = 0.0) -> GroupShare:
    return GroupShare(
        hunks=(HUNKS[number],),
        why=why,
        share=share,
        parts={"tests": 0.6, "quality": share.value - 0.6} if share.value else {},
        alone=alone,
        without=without,
    )


EXACT = Attribution(
    reward="default",
    whole=subset(0.9),
    nothing=subset(0.0, passes=False),
    groups=(
        group(
            1,
            Share(0.8, 0.8, 0.8),
            Without(
                value=0.0,
                cause="",
                change=0.9,
                no_longer_fixed=("t::fails[red]",),
                newly_broken=(),
                newly_fixed=(),
                no_longer_broken=(),
            ),
        ),
        group(
            2,
            Share(0.1, 0.1, 0.1),
            Without(
                value=0.5,
                cause="builds: m.py: no",
                change=0.4,
                no_longer_fixed=(),
                newly_broken=("t::a", "t::b"),
                newly_fixed=(),
                no_longer_broken=(),
            ),
        ),
        group(
            0,
            Share(0.0, 0.0, 0.0),
            Without(
                value=0.9,
                cause="",
                change=0.0,
                no_longer_fixed=(),
                newly_broken=(),
                newly_fixed=(),
                no_longer_broken=(),
            ),
            "apart they leave <nothing>",
        ),
    ),
    is_exact=True,
    orders=0,
    interactions={(0, 1): 0.7, (0, 2): 0.001, (1, 2): -0.25},
    smallest=Smallest(HUNKS[1:], PATCH, "smallest", "all 4 smaller subsets were run, and none passes"),
    unscored=(),
    cost=Cost(8, 3, 6, 12.0),
)


def shown(found: Attribution, width: int = 200) -> str:
    out = io.StringIO()
    print_attribution(found, Console(file=out, width=width))
    return out.getvalue()


def test_a_terminal_is_told_every_share_and_what_happens_without_it() -> None:
    text = shown(EXACT)
    assert "exact Shapley values of 3 hunks; they add up to 0.900 (the patch) minus 0.000 (no patch) = +0.900" in text
    assert re.search(r"1 +m\.py:6 +\+0\.800 +0\.000 +0\.000 +Without it, 1 test is not fixed: t::fails\[red\]", text)
    assert re.search(
        r"2 +m\.py:26 +\+0\.100 +0\.000 +0\.500 +Without it, 2 tests break: t::a, t::b \(builds: m\.py: no\)", text
    )
    assert re.search(r"3 +<b>\.py \(deleted file\) +0\.000 +0\.000 +0\.900 +Without it, nothing changes", text)
    assert "tests +0.600, quality +0.200" in text
    assert "Group 3: apart they leave <nothing>." in text
    assert "Positive interaction: groups 1 and 2 (+0.700).\nNegative interaction: groups 2 and 3 (−0.250).\n" in text
    assert "Smallest passing part: 2 of 3 hunks, m.py:6, m.py:26 (proven smallest: all 4 smaller subsets" in text
    assert "Cost: 8 subsets, 3 of them from the store; 6 executions for the others; 12 s." in text
    assert text.endswith(f"{CAVEAT}\n")


def test_the_piece_of_html_shows_each_hunk_with_its_lines_and_escapes_all() -> None:
    page = explanation_html(EXACT.whole.breakdown, "fix.diff", EXACT)
    for lines in ("-v5 = 5", "+v5 = 6", "-v25 = 25", "+v25 = 26"):
        assert page.count(lines) == 1
    assert page.count('<div class="hunk">') == 3
    assert "<b>.py" not in page
    assert "&lt;b&gt;.py (deleted file)" in page
    assert '<b class="good">+0.800</b>' in page
    assert CAVEAT.replace("'", "&#39;") in page
    assert "http" not in page
    assert '<div class="hunk">' not in explanation_html(EXACT.whole.breakdown, "fix.diff")


def test_unknown_shares_are_bounded_or_said_to_be_unknown_and_never_zero() -> None:
    bounded, unbounded = (Share(None, low, high, math.nan) for low, high in ((-0.25, 0.5), (-math.inf, math.inf)))
    lost = Without(
        value=None,
        cause="TestRun: the disk is full",
        change=None,
        no_longer_fixed=(),
        newly_broken=(),
        newly_fixed=(),
        no_longer_broken=(),
    )
    groups = (group(1, bounded, lost, alone=None), group(2, unbounded, lost, alone=None))
    found = replace(EXACT, groups=groups, unscored=(((1,), "TestRun: the disk is full"),), smallest=None)
    text = shown(found)
    assert "unknown: −0.250 to +0.500" in text
    assert re.search(r"m\.py:26 +unknown +– +– +Without it: unscored \(TestRun: the disk is full\)", text)
    assert "1 of 8 subsets are unscored (TestRun: the disk is full). Unscored is not 0" in text
    assert "The same command repeats only the failed runs" in text
    assert "No executed part of the patch passes" in text
    record = json.dumps(found.to_json(), allow_nan=False)
    assert json.loads(record)["groups"][1]["low"] is None
    inapplicable = replace(
        found, nothing=subset(None, "not applicable: none"), unscored=(((), "not applicable: none"),)
    )
    text = shown(inapplicable)
    assert "Their sum is unknown: the reward of the empty patch is unscored (not applicable: none)" in text
    assert "The same command" not in text


def test_estimates_come_with_their_error_and_other_ends() -> None:
    sampled = replace(
        EXACT,
        is_exact=False,
        orders=8,
        groups=(
            group(
                1,
                Share(-0.2, -0.2, -0.2, 0.05),
                Without(
                    value=0.9,
                    cause="",
                    change=0.2,
                    no_longer_fixed=(),
                    newly_broken=(),
                    newly_fixed=("t::x",),
                    no_longer_broken=("t::y",),
                ),
            ),
        ),
        smallest=Smallest(HUNKS[1:2], PATCH, "one-minimal", "none passes"),
        notes=("many are together",),
    )
    text = shown(sampled)
    assert "Shapley values of 1 hunk ± standard error, from 8 sampled orders" in text
    assert "−0.200 ± 0.050" in text
    assert "Without it, 1 test is not broken: t::y; 1 test is fixed: t::x" in text
    assert "Smallest passing part: the whole patch (proven minimal, perhaps not smallest: none passes)" in text
    assert "many are together" in text
    assert attribution_view(sampled).groups[0].tone == "bad"
    nothing = replace(EXACT, groups=(), smallest=None, whole=subset(0.0, passes=False))
    assert "no hunks" in shown(nothing)
    asked_nothing = replace(EXACT, smallest=Smallest((), Patch(""), "smallest", "nothing is smaller"))
    assert "Smallest passing part: nothing." in shown(asked_nothing)
