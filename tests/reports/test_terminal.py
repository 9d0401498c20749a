import io
import re

import pytest
from rich.console import Console

from regrade.evaluators.analysis.comparison import compare
from regrade.evaluators.analysis.metrics import BREAKAGE_INCIDENCE, FIX_AND_CLEAN, estimate
from regrade.reports.results import load_results
from regrade.reports.terminal import print_comparison, print_figures, print_policies, print_results


@pytest.fixture(scope="module")
def results(finished_run):
    return load_results(finished_run)


def printed(write, subject, **options) -> str:
    stream = io.StringIO()
    write(subject, Console(file=stream, width=120, highlight=False, **options))
    return stream.getvalue()


def test_policies_say_rate_interval_and_attempts_without_colour(results):
    text = printed(print_policies, results)
    assert "\x1b" not in text
    assert "12 tasks" in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    place = next(number for number, line in enumerate(lines) if line.startswith("SFT 25"))
    assert lines[place] == "SFT 25.0 % 33.3 % 25.0 % 50.0 % 12"
    assert lines[place + 1].startswith("baseline, greedy [")
    assert lines[place + 1].count("[") == 4
    assert "candidate, T = 0.7 [" in "\n".join(lines)


def test_everything_fits_eighty_columns(results):
    stream = io.StringIO()
    print_results(results, Console(file=stream, width=80))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "25.0\u00a0%" in text


def test_comparison_says_its_verdict_in_words(results):
    found = results.pairs[0].best
    plain = printed(print_comparison, found)
    assert plain.startswith(f"rl against sft: {found.verdict.upper()} ({found.decision.detail})\n")
    assert plain.splitlines()[1] == "for new bugs in these 2 repositories only", "the scope stands beside the verdict"
    row = next(line for line in plain.splitlines() if line.startswith(FIX_AND_CLEAN.label))
    assert f"{FIX_AND_CLEAN.label} 25.0 % 33.3 % +8.3 [" in " ".join(row.split())
    assert row.rstrip().endswith(f" {found.decision.fixing.kind}")
    told = " ".join(plain.split())
    assert "12 tasks in 12 functions, 12 and 24 attempts" in told
    assert "new bugs in these 2 repositories; for other repositories" in told
    assert re.search(r"t\(10\) over functions; non-inferiority margin 2 points", told)
    assert re.search(r"Minimum detectable effect at 80 % power: [\d.]+ points in clean fixes, [\d.]+ in breakage", told)
    coloured = printed(print_comparison, found, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured


def test_breakage_that_was_not_measured_is_unmeasured_and_not_zero(results):
    first, second = (policy.best.assign(broke=float("nan"), broken=float("nan")) for policy in results.policies[:2])
    found = compare(first, second)
    plain = printed(print_comparison, found)
    row = next(line for line in plain.splitlines() if line.startswith(BREAKAGE_INCIDENCE.label))
    assert row.split() == ["Breakage", "unmeasured"]
    assert found.decision.breaking.kind == "unmeasured"
    assert "breakage unmeasured" in plain.splitlines()[0]
    figures = [line.split() for line in printed(print_one, first).splitlines()]
    assert ["Breakage", "unmeasured"] in figures
    assert not any(line[:2] == ["Guarded", "tests"] for line in figures)
    assert estimate(first, BREAKAGE_INCIDENCE).is_unmeasured
    assert estimate(first, BREAKAGE_INCIDENCE).missing == found.n_missing == 0


def print_one(rows, console):
    print_figures("sft", 0.0, rows, console)


def test_what_cannot_be_compared_says_why(results):
    rows = results.policies[0].best
    text = printed(print_comparison, compare(rows, rows.iloc[1:]))
    assert "NOT COMPARABLE" in text
    assert "'task-00'" in text
    assert "interval" not in text


def test_a_run_at_a_glance(results):
    text = printed(print_results, results)
    assert "execution 25 %, generation 50 %, training 25 %" in text
    assert "evaluation of sft" in text
    assert text.count("against") == 2


def test_names_with_brackets_are_not_taken_for_markup(results):
    rows = results.policies[0].best.assign(policy="[bold]org/model[/]")
    assert "[bold]org/model[/]" in printed(print_comparison, compare(rows, rows))
