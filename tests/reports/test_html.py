import html.parser
import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis.verdicts import Decision, decide
from regrade.evaluators.storage.run import Run
from regrade.reports import attempts
from regrade.reports.attempts import task_views
from regrade.reports.charts import forest
from regrade.reports.diff_lines import diff_lines
from regrade.reports.html_report import write_report
from regrade.reports.page import Page, _reach, build_page
from regrade.reports.result_charts import detailed_policies
from regrade.reports.results import Pair, load_results
from regrade.reports.svg import INKS, canvas
from regrade.reports.training_curves import training_curves
from regrade.reports.verdict_text import headline, verdicts

VOID = {"meta", "input", "br", "path", "use", "rect", "link"}


class Outline(html.parser.HTMLParser):
    """What a page is made of; raises where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(finished_run) -> str:
    path = write_report(finished_run)
    assert path == finished_run / "report.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(finished_run) -> Page:
    return build_page(load_results(finished_run))


def test_the_page_is_whole_and_fetches_nothing(page, finished_run):
    outline = Outline(page)
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.scripts == 1
    assert not [found for found in outline.attributes if found[1] == "src"]
    targets = [value for _, name, value in outline.attributes if name == "href"]
    assert targets
    assert all(target.startswith("#") and target[1:] in outline.ids for target in targets)
    assert not re.search(r"@import|url\((?!#)|https?://", page)
    assert "default-src 'none'" in page
    assert len(page) < 1_000_000
    assert (finished_run / "summary.json").exists()


def test_the_page_shows_what_was_found(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    assert re.search(
        r"Expert iteration (improves on SFT and( [a-z ]+)?|is not shown to differ from SFT (or|and [a-z ]+)) SFT, equal time",
        text,
    )
    assert "Mean over all attempts at 12 tasks (intention to treat, equal weight of tasks)" in text
    assert "33.3 % clean fixes by Expert iteration and 25.0 % by SFT" in text
    for section in ("result", "policies", "temperatures", "tasks", "reward", "training", "time", "data"):
        assert f'id="{section}"' in page
    assert "loss was not finite at step 1" in text
    assert "execution 25 %" in text
    assert "the intervals are for new bugs in these 2 repositories" in text
    assert "assert m.f5(1) == 6" in text  # a failing test
    assert "test_m.py::test_f5" in text  # a broken one


OPEN = (-0.1, 0.1)
VERDICTS: dict[str, Decision | None] = {
    "improved": decide((0.1, 0.2), (-0.2, -0.1), 0.02),
    "regressed": decide(OPEN, (0.1, 0.2), 0.02),
    "inconclusive": decide((0.1, 0.2), OPEN, 0.02),
    "by missing": decide((0.1, 0.2), (0.0, 0.01), 0.02, depends_on_missing=True),
    "unmeasured": decide((0.1, 0.2), None, 0.02),
    "no difference shown": decide(OPEN, OPEN, 0.02),
    "not comparable": None,
}


def verdict_of(candidate: str, baseline: str, kind: str) -> Pair:
    names = [SimpleNamespace(name=name, label=name.upper()) for name in (baseline, candidate)]
    decision = VERDICTS[kind]
    verdict = decision.verdict if decision else "not comparable"
    best = SimpleNamespace(verdict=verdict, decision=decision)
    return cast(Pair, SimpleNamespace(baseline=names[0], candidate=names[1], best=best))


def test_the_headline_tells_of_every_candidate():
    same, worse = verdict_of("a", "x", "no difference shown"), verdict_of("b", "x", "regressed")
    control = verdict_of("a", "y", "improved")
    assert headline([]) == ""
    assert headline([same, control]) == "A is not shown to differ from X and improves on Y"
    assert headline([same, control, worse]) == "A is not shown to differ from X and improves on Y; B is worse than X"
    open_one = verdict_of("a", "x", "inconclusive")
    expected = "A fixes more than X, non-inferiority on breakage not shown, and improves on Y"
    assert headline([open_one, control]) == expected
    both = [worse, verdict_of("b", "y", "regressed")]
    assert headline(both) == "B is worse than X and Y"
    assert verdicts([same, control, worse]) == ("no difference shown", "regressed")
    many = [verdict_of(name, "x", "regressed" if name == "d" else "inconclusive") for name in "abcd"]
    assert headline(many) == "4 candidates against X: 1 regressed, 3 inconclusive"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("inconclusive", "A fixes more than X, non-inferiority on breakage not shown"),
        ("by missing", "A improves on X, but not in the worst case of the missing attempts"),
        ("unmeasured", "A fixes more than X, breakage unmeasured"),
    ],
)
def test_the_headline_names_what_is_open(kind, text):
    """It said that A is not shown to differ, over a difference whose interval excludes 0."""
    assert headline([verdict_of("a", "x", kind)]) == text
    assert verdicts([verdict_of("a", "x", kind)]) == ("inconclusive",)


def test_the_card_has_the_scope_the_answers_and_both_detectable_effects(page, built):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))
    hero = text[text.index("Skip to the result") :][:2500]
    assert "for new bugs in these 2 repositories only" in hero[: hero.index("Mean over all attempts")]
    for view in built.pairs:
        assert [answer.kind for answer in view.answers] == [
            view.comparison.decision.fixing.kind, view.comparison.decision.breaking.kind
        ]  # fmt: skip
    assert re.search(
        r"Minimum detectable effect at 80 % power: [\d.>]+ points in clean fixes, [\d.>]+ in breakage", text
    )
    method = built.pairs[0].comparison.metrics["fix_and_clean"].method
    assert f"intervals of the verdict by {method}" in text, "it said bootstrap, whatever the method"
    assert "bootstrap" not in text


def test_one_constant_measure_does_not_set_the_scale_of_the_forest(built):
    varying = built.pairs[0].comparison.metrics["fix_and_clean"]
    constant = replace(varying, difference=0.0, low=-0.9, high=0.9, is_constant=True)
    assert _reach([varying, constant]) == _reach([varying]) < 0.9
    assert _reach([constant]) == 0.9
    (chart,) = re.findall("<svg.*</svg>", forest("f", [varying, constant], 0.02, _reach([varying])), re.DOTALL)
    assert chart.count("<path") > forest("f", [varying, varying], 0.02, _reach([varying])).count("<path"), "arrows"
    assert _reach([]) is None


def test_what_policies_wrote_is_text_and_never_markup(page):
    assert "'&lt;b&gt;' *" in page or "&#39;&lt;b&gt;&#39; *" in page
    assert "<b>' *" not in page
    assert "&lt;broken&gt;" in page


def test_charts_take_their_colours_from_the_page(page):
    charts = re.findall(r'<svg class="chart".*?</svg>', page, flags=re.DOTALL)
    assert len(charts) >= 9
    assert not re.search(r"#[0-9a-f]{6}\b", "".join(charts))
    for ink in set(re.findall(r"var\(--(\w+)\)", page)) - {"ink"}:
        assert page.count(f"--{ink}:") >= 1, ink
    assert page.count("prefers-color-scheme: dark") == 1


def test_numbers_on_the_axes_are_not_cut():
    with canvas("test", 'a "quoted" chart') as drawing:
        drawing.axes.plot([0, 1], [0, 1], color=INKS["s1"], gid=drawing.tip("a < b & c"))
        drawing.axes.set_yticks([0.12345, 0.5], ["0.12345", "$x$ costs $5"])
    assert ">0.12345<" in drawing.svg
    assert ">$x$ costs $5<" in drawing.svg
    assert "<title>a &lt; b &amp; c</title>" in drawing.svg
    assert "stroke: var(--s1)" in drawing.svg
    assert 'aria-label="a &#34;quoted&#34; chart"' in drawing.svg


def test_tasks_are_grouped_by_who_fixed_them(built):
    assert built.groups == {"won": 6, "lost": 1, "both": 2, "none": 3}
    assert [view.group for view in built.views] == ["won"] * 6 + ["lost"] + ["both"] * 2 + ["none"] * 3
    won = built.views[0]
    assert won.id == "task-03"
    assert [(who.label, who.count, n) for who, n in won.scores] == [
        ("SFT", 0, 1),
        ("Expert iteration", 1, 2),
        ("SFT, equal time", 0, 1),
    ]
    first, second = won.attempts[0], won.attempts[1]
    assert [(who.label, who.count) for who in first.who] == [("Expert iteration", 1)]
    assert ("good", "fixed") in first.marks
    assert second.broken_tests == ("test_m.py::test_f4",)
    assert first.parts[0]["name"] == "kept"


def test_a_full_page_leaves_out_details_and_says_so(finished_run, monkeypatch):
    monkeypatch.setattr(attempts, "PAGE_BUDGET", 1500)
    results = load_results(finished_run)
    views = task_views(*detailed_policies(results)[:2], [], dict.fromkeys(("sft", "rl"), "s1"), {}, {})
    assert views[0].attempts
    assert not views[-1].attempts
    assert len(views) == 12


def test_reward_parts_add_up_to_the_mean_reward(built):
    for policy in built.results.policies:
        assert sum(built.reward_parts[policy.label].values()) == pytest.approx(policy.best["reward"].mean())


def test_a_run_without_pairs_and_with_lost_attempts_still_has_a_page(finished_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    run = Run(folder)
    for name in ("control", "rl"):
        run.evaluation(name).unlink()
    lost = json.loads(run.evaluation("no-op").read_text().splitlines()[0]) | {
        "status": "unscored",
        "cause": "the worker was lost",
        "sample": 1,
        "patch": "+\ud800",
        "completion": "",
        **dict.fromkeys(("reward", "fix", "broken", "broke", "clean_fix", "fixed")),
        "end": "",
        "empty": False,
    }
    with run.evaluation("no-op").open("a") as file:
        file.write(json.dumps(lost) + "\n")
    text = write_report(folder).read_text(encoding="utf-8")
    Outline(text)
    assert "This run has no candidate with a baseline" in text
    built = build_page(load_results(folder))
    assert built.groups == {"won": 0, "lost": 0, "both": 3, "none": 9}
    assert [policy.name for policy in built.detailed] == ["sft"]
    assert 'data-repository="repo1"' in text
    assert "1 missing" in text
    with pytest.raises(UserError, match="is not a run"):
        write_report(tmp_path)


def test_logs_follow_the_phases_and_single_steps_are_figures():
    steps = [{"step": n, "loss": 1.0 / n, "clip/low": 0.0, "epoch": n, "training_seconds": 1.0} for n in (1, 2, 3)]
    single = [{"step": 1, "auc": None, "pairs": 4}]
    faded = [{"step": n, "entropy": 2.0 / 3**n} for n in range(6)]
    phases = {"grpo": faded, "sft": steps, "sft-all": steps, "reward-model-test": single, "other": single}
    found = training_curves(phases, ["sft", "grpo", "sft all", "reward model"])
    assert [curves.phase for curves in found] == ["sft", "grpo", "sft-all", "reward-model-test", "other"]
    assert [name for name, _ in found[0].charts] == ["loss"]
    assert (found[3].charts, found[3].figures) == ((), (("pairs", 4.0),))
    assert "entropy fell from 2.00 to 0.01" in found[1].alarms[0]


def test_the_data_page_counts_what_happened_and_names_what_did_not(built, page):
    counts = {row.policy.label: row.counts for row in built.quality}
    assert counts["SFT"]["Attempts"] == 36
    assert counts["Does nothing"]["No change"] == 12
    assert "Crashed" in built.unused_columns
    assert "No change" not in built.unused_columns
    assert {(row.pair.key, row.difference.name) for row in built.sensitivities} == {
        (pair, measure)
        for pair in ("rl_vs_sft", "rl_vs_control")
        for measure in ("fix_and_clean", "breakage_incidence")
    }
    assert "11 guarded tests (median)" in page


def test_an_attempt_is_told_step_by_step(built):
    steps = built.views[0].attempts[0].steps
    assert steps[0] == "Answer: T = 0.7"
    assert steps[1] == "The patch changes 2 lines"
    assert "fixed 1 of 1, broke 0 of 11" in steps[2]
    assert steps[3].startswith("Reward 1.0")
    assert any(attempt.completion == "fix" for view in built.views for attempt in view.attempts)


@pytest.mark.slow
def test_two_thousand_attempts_with_long_patches_make_less_than_five_megabytes(finished_run, tmp_path):
    folder = tmp_path / "large"
    shutil.copytree(finished_run, folder)
    run, count = Run(folder), 0
    for name in ("sft", "control", "rl"):
        rows = [json.loads(line) for line in run.evaluation(name).read_text().splitlines()]
        copies = [{**row, "task": f"{row['task']}-{n}", "function": f"f{n}"} for n in range(19) for row in rows]
        for number, row in enumerate(copies):
            row["patch"] += "".join(f"+line {line} <of> attempt {number}\n" for line in range(200))
            row |= {"patch_digest": str(number), "completion": "word " * 2000, "well_formed": bool(number % 2)}
        run.evaluation(name).write_text("".join(json.dumps(row) + "\n" for row in copies))
        count += len(copies)
    assert count > 2000
    page = write_report(folder)
    assert page.stat().st_size < 5_000_000
    assert "Omitted to keep this page small" in page.read_text(encoding="utf-8")


def test_lines_of_a_diff():
    text = "diff --git a/m b/m\n--- a/m\n+++ b/m\n@@ -1 +1 @@\n same\n-old\n+new\n"
    assert [kind for kind, _ in diff_lines(text)] == ["file", "file", "hunk", "same", "del", "add"]
    assert diff_lines("") == []


def test_a_report_of_unmeasured_breakage_says_so_and_draws_the_rest(finished_run, tmp_path):
    """Every place that shows breakage: it was 0.0 %, or an error."""
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    run = Run(folder)
    unknown = dict.fromkeys(("fix", "fixed", "broke", "broken", "newly_skipped", "broken_hops", "broken_tests"))
    for name in ("sft", "control", "rl", "no-op"):
        rows = [json.loads(line) | unknown for line in run.evaluation(name).read_text().splitlines()]
        run.evaluation(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = write_report(folder).read_text(encoding="utf-8")
    Outline(text)
    assert "breakage unmeasured" in text
    assert "Breakage is unmeasured." in text
    assert '<span class="answer">unmeasured</span>' in text
    assert "0 missing" not in text
    built = build_page(load_results(folder))
    assert built.quality[0].counts["Infrastructure failed"] == 0
    assert not built.trade_off
    assert all(row.figures["breakage_incidence"].is_unmeasured for row in built.best_rows)
    found = json.loads((folder / "summary.json").read_text())
    assert found["policies"]["sft"]["breakage_incidence"]["value"] is None
    assert found["comparison"]["rl_vs_sft"]["decision"]["breaking"] == "unmeasured"
    marks = {mark for view in built.views for attempt in view.attempts for mark in attempt.marks}
    assert ("plain", "breakage unmeasured") in marks
    assert not any("infrastructure" in text for _, text in marks)
