import io

import pytest
from rich.console import Console

from regrade.evaluators.analysis.comparison import compare
from regrade.evaluators.analysis.metrics import FIX_AND_CLEAN
from regrade.reports.results import load_results
from regrade.reports.terminal import print_comparison, print_policies, print_results


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
    assert "p (Holm)" not in text


def test_comparison_says_its_verdict_in_words(results):
    found = results.pairs[0].best
    plain = printed(print_comparison, found)
    assert plain.startswith(f"rl against sft: {found.verdict.upper()}\n")
    row = next(line for line in plain.splitlines() if line.startswith(FIX_AND_CLEAN.label))
    assert f"{FIX_AND_CLEAN.label} 25.0 % 33.3 % +8.3 [" in " ".join(row.split())
    assert "p (Holm)" in plain
    assert "12 tasks in 12 functions, 12 and 24 attempts" in " ".join(plain.split())
    assert "these 2 repositories; for other repositories" in " ".join(plain.split())
    coloured = printed(print_comparison, found, force_terminal=True, color_system="standard")
    assert "\x1b[" in coloured


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
