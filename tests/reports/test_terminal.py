import io

import pytest
from rich.console import Console

from regrade.evaluators.comparison import compare
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
    assert "12 held-out tasks" in text
    line = next(line for line in text.splitlines() if line.startswith("SFT (baseline)"))
    for part in ("greedy", "25.0 % [", "33.3 % [", "50.0 %", "12"):
        assert part in line
    assert "T = 0.7" in next(line for line in text.splitlines() if line.startswith("Expert iteration"))


def test_comparison_says_its_verdict_in_words(results):
    found = results.pairs[0].best
    plain = printed(print_comparison, found)
    assert plain.startswith(f"rl against sft: {found.verdict.upper()}\n")
    row = next(line for line in plain.splitlines() if line.startswith("Fixed, broke nothing"))
    assert "25.0 %" in row
    assert "33.3 %" in row
    assert "+8.3" in row
    assert "12 tasks in 12 functions, 12 and 24 attempts" in " ".join(plain.split())
    assert "not repositories, of which there are only 2" in " ".join(plain.split())
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
