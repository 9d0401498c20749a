"""The tree that explains a score: every part, its arithmetic and its reason, and nothing taken for markup."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from regrade.reports.explanation import explanation_html, print_breakdown
from regrade.rewards import (
    BuildRun,
    Diff,
    EvidenceSet,
    Integrity,
    Reward,
    TestOutcome,
    TestRun,
    TestStatus,
    builds,
    load_reward,
    small_diff,
    untampered,
)
from regrade.rewards.assurance_level import AssuranceLevel
from regrade.rewards.breakdown import rounded_shares

OUTCOME: Reward = load_reward("tests")
EVIDENCE = EvidenceSet(
    {
        TestRun: TestRun(
            outcomes={
                "t.py::a": TestOutcome(TestStatus.PASSED),
                "t.py::b[x]": TestOutcome(TestStatus.FAILED, "assert [red] == 2"),
            },
            fail_to_pass=("t.py::a",),
            pass_to_pass=("t.py::b[x]",),
        ),
        Diff: Diff(25, 25, ("a.py",)),
        BuildRun: BuildRun(True, 0),
        Integrity: Integrity(()),
    }
)


def shown(reward: Reward, evidence: EvidenceSet = EVIDENCE, *, title: str = "", colours: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=160, force_terminal=colours, color_system="standard" if colours else None)
    print_breakdown(reward.evaluate(evidence), console, title=title)
    return out.getvalue()


def test_every_part_has_its_arithmetic_and_its_reason() -> None:
    text = shown((0.8 * OUTCOME + 0.2 * small_diff).only_if(builds, untampered), title="fix.diff")
    lines = text.splitlines()
    assert lines[0] == "fix.diff  0.061  (assurance: in-process)"
    assert lines[-1] == AssuranceLevel.IN_PROCESS.not_excluded
    assert "docs/security.md" in lines[-1]
    assert re.search(r"tests +0\.800 x 0\.000 = 0\.000  fixes 1 of 1 FAIL_TO_PASS, breaks 1 of 1 PASS_TO_PASS; ", text)
    assert "t.py::b[x] failed: assert [red] == 2" in text
    assert re.search(r"small_diff +0\.200 x 0\.303 = 0\.061 +50 lines changed", text)
    assert re.search(r"only if builds +gate, not applicable", text)
    assert re.search(r"only if untampered +gate open", text)


THIRDS = (
    1 / 3 * small_diff
    + 1 / 3 * (1 / 3 * small_diff + 1 / 3 * small_diff + 1 / 3 * builds).named("both")
    + 1 / 3 * OUTCOME
)


def shown_numbers(text: str, depth: int) -> list[float]:
    """The contributions of one level of the tree."""
    return [float(n) for n in re.findall(rf"^(?:[│ ]   ){{{depth}}}[├└]── .*? = (\d\.\d{{3}})", text, re.MULTILINE)]


def test_the_contributions_shown_add_up() -> None:
    """To the last digit: 0.101 + 0.101 is not 0.202 if both are 0.1010 and the whole is 0.2020, but three times 0.1667."""
    text = shown(THIRDS)
    assert text.split()[0] == "0.202"
    top, inner = shown_numbers(text, 0), shown_numbers(text, 1)
    assert (len(top), len(inner)) == (3, 2)
    assert round(sum(top), 9) == 0.202
    assert round(sum(inner), 9) == top[1]
    assert "not applicable" in text


def test_the_contributions_of_the_page_and_of_plain_text_add_up_too() -> None:
    breakdown = THIRDS.evaluate(EVIDENCE)
    rows = re.findall(
        r"padding-left: (\d+)px.*?</th>\s*<td>.*?</td>\s*<td>.*?</td>\s*<td>(.*?)</td>",
        explanation_html(breakdown),
        re.DOTALL,
    )
    levels: dict[str, list[float]] = {}
    for indent, number in rows:
        levels.setdefault(indent, []).append(float(number))
    assert round(sum(levels["12"]), 9) == 0.202
    assert round(sum(levels["26"]), 9) == levels["12"][1]
    plain = [float(number) for number in re.findall(r"^  \w.* = (\d\.\d{3})  ", str(breakdown), re.MULTILINE)]
    assert round(sum(plain), 9) == 0.202


@given(st.lists(st.floats(-1, 1), max_size=12))
def test_rounded_shares_add_up_and_are_near(shares: list[float]) -> None:
    whole = sum(shares)
    rounded = rounded_shares(shares, whole)
    assert round(sum(rounded), 9) == float(f"{whole:.3f}")
    assert all(abs(one - other) < 0.0010001 for one, other in zip(shares, rounded, strict=True))
    assert all(other == 0 for one, other in zip(shares, rounded, strict=True) if one == 0)


def test_shares_of_an_unknown_whole_are_rounded_each_by_itself() -> None:
    assert rounded_shares([0.3336, 0.3336], None) == [0.334, 0.334]
    assert rounded_shares([0.3336, 0.3336], 0.9) == [0.334, 0.334]


def test_a_closed_gate_shows_as_the_cause() -> None:
    failed = EvidenceSet({**EVIDENCE.records, BuildRun: BuildRun(False, 1, "a.py:1: SyntaxError: no")})
    text = shown((1.0 * small_diff).only_if(builds), failed)
    assert text.splitlines()[0] == "0.000  builds: a.py:1: SyntaxError: no  (assurance: in-process)"
    assert "gated: 0" in text
    assert re.search(r"only if builds +gate closed", text)


def test_unscored_is_shown_as_unscored_with_its_cause() -> None:
    text = shown(small_diff, EvidenceSet({}, {Diff: "the disk is full"}))
    assert text == "unscored  Diff: the disk is full  (assurance: in-process)\n"


def test_colours_only_where_they_are_wanted() -> None:
    assert "\x1b[" in shown(small_diff, colours=True)
    assert "\x1b[" not in shown(small_diff)


def test_what_a_terminal_would_obey_is_written_out() -> None:
    message = "\x1b[2K\x1b[1A 1.000 \x00 \u202e \ud800 caf\u00e9"
    run = TestRun(
        outcomes={"t.py::a": TestOutcome(TestStatus.FAILED, message)}, fail_to_pass=("t.py::a",), pass_to_pass=()
    )
    text = shown(OUTCOME, EvidenceSet({TestRun: run}), title="\x1b]0;title")
    assert r"\x1b[2K\x1b[1A 1.000 \x00 \u202e \ud800 café" in text
    assert r"\x1b]0;title" in text
    assert not set(text) & set("\x1b\x00\u202e\ud800")


def test_the_fragment_holds_the_tree_and_escapes_what_it_is_told() -> None:
    hostile = EvidenceSet({**EVIDENCE.records, BuildRun: BuildRun(False, 1, "<script>alert(1)</script> & \udcff")})
    page = explanation_html((0.8 * OUTCOME + 0.2 * small_diff).only_if(builds).evaluate(hostile), "a<b>.diff")
    assert page.strip().startswith("<section")
    assert page.strip().endswith("</section>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in page
    assert "a&lt;b&gt;.diff" in page
    for name in ("tests", "small_diff", "builds"):
        assert f">{name}</th>" in page
    assert "http" not in page
    page.encode()


def test_the_numbers_of_the_fragment_add_up() -> None:
    page = explanation_html((0.5 * small_diff + 0.5 * OUTCOME).evaluate(EVIDENCE))
    rows = re.findall(r"<tr>.*?</tr>", page, re.DOTALL)[1:]
    added = [float(re.findall(r"<td>(.*?)</td>", row, re.DOTALL)[2]) for row in rows]
    assert sum(added) == pytest.approx(float(re.findall(r"<b>(.*?)</b>", page)[0]), abs=1e-3)
