import json
import re
import shutil
from dataclasses import replace

import pytest

from regrade.evaluators.analysis import metrics as m
from regrade.evaluators.storage.run import Run
from regrade.reports import charts
from regrade.reports.html_report import write_report
from regrade.reports.page import build_page
from regrade.reports.result_charts import by_trait, checkpoints, hops, places, severity, waterfalls
from regrade.reports.results import load_results
from regrade.reports.severity import SEVERITY_INKS, severity_of
from regrade.reports.svg import INKS, canvas


@pytest.fixture(scope="module")
def results(finished_run):
    return load_results(finished_run)


@pytest.fixture(scope="module")
def trained(finished_run, tmp_path_factory):
    """The run with two checkpoints of one training, whose attempts are those of two of its policies."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(finished_run, folder)
    run = Run(folder)
    for step, source in ((10, "sft"), (20, "control")):
        name = f"expert-{step}"
        run.add_policy(name, "checkpoint", label=name, series="expert", step=step)
        rows = [json.loads(line) | {"policy": name} for line in run.evaluation(source).read_text().splitlines()]
        run.evaluation(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_shares_by_severity_add_up_to_the_breakage(results):
    figure = severity(results)
    assert list(figure.rows) == list(SEVERITY_INKS)
    for policy in results.policies:
        broke = m.breakage_incidence(policy.best)
        shares = [each[policy.label] for each in figure.rows.values()]
        assert sum(share.value for share in shares) == pytest.approx(broke.value)
        assert {share.n for share in shares} == {broke.n}
    assert "(n = 12)" in figure.chart


def test_a_patch_that_never_ends_is_of_the_worst_severity_and_a_lost_one_of_none(results):
    rows = results.policies[0].best.head(3).copy()
    rows["broken"], rows["broke"], rows["end"] = [0.0, 1.0, float("nan")], [1.0, 1.0, float("nan")], ["timeout", "", ""]
    found = list(severity_of(rows))
    assert found[:2] == ["at least half, or not completed", "1 test"]
    assert found[2] != found[2]  # not known


def test_breakage_stands_at_the_distance_of_the_broken_tests(results):
    figure = hops(results, dict.fromkeys(results.manifest.policies, "s1"))
    near = figure.rows["1: a direct import"]
    assert near["SFT"].value == pytest.approx(3 / 12)
    assert near["SFT"].low < 3 / 12 < near["SFT"].high
    assert all(found["SFT"].value == 0 for name, found in figure.rows.items() if name != "1: a direct import")
    assert "Does nothing" not in near


def test_breakage_stands_in_the_place_of_the_broken_tests_where_tasks_hide_some(results, monkeypatch):
    inks = dict.fromkeys(results.manifest.policies, "s1")
    assert places(results, inks) is None
    hiding = {name: {**task, "shown": ["tests/test_none.py"]} for name, task in results.tasks.items()}
    monkeypatch.setattr(Run, "tasks", lambda _: hiding)
    figure = places(replace(results), inks)
    assert figure.rows["own tests"]["SFT"].value == pytest.approx(3 / 12)
    assert figure.rows["shown"]["SFT"].value == 0
    assert "breakage in this place" in figure.chart


def test_a_waterfall_leads_from_one_mean_reward_to_the_other(results):
    for fall in waterfalls(results):
        moved = sum(part.difference for part in fall.changes.parts)
        assert fall.reward.baseline + moved == pytest.approx(fall.reward.candidate)
        assert fall.pair.candidate.best["reward"].mean() == pytest.approx(fall.reward.candidate)
        assert "kept: +" in fall.chart


def test_checkpoints_are_a_series_by_step_and_not_rows_among_the_policies(trained):
    results = load_results(trained)
    (series,) = checkpoints(results)
    assert series.name == "expert"
    assert [policy.entry.step for policy, _ in series.rows] == [10, 20]
    assert "step 20, breakage: 25.0 % [" in series.chart
    page = build_page(results)
    assert "expert-10" not in [row.policy.name for row in page.best_rows]
    assert 'id="checkpoints"' in write_report(trained).read_text(encoding="utf-8")


def test_kinds_of_tasks_stand_apart_where_the_tasks_differ_in_them(finished_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder)
    tasks = [json.loads(line) for line in (folder / "tasks.jsonl").read_text().splitlines()]
    for number, task in enumerate(tasks):
        task |= {"difficulty": "easy" if number < 3 else "hard", "source": "mutation"}
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    results = load_results(folder)
    found = by_trait(results, dict.fromkeys(results.manifest.policies, "s1"))
    assert list(found) == ["By difficulty"]
    rows = found["By difficulty"].rows
    assert set(rows) == {"easy (3 tasks)", "hard (9 tasks)"}
    assert (rows["easy (3 tasks)"]["SFT"].value, rows["hard (9 tasks)"]["SFT"].value) == (1, 0)
    assert "<h3>By difficulty</h3>" in write_report(folder).read_text(encoding="utf-8")


def test_a_point_that_can_be_picked_is_a_button_with_its_name():
    with canvas("test", "chart") as drawing:
        drawing.axes.plot([0, 1], [0, 1], color=INKS["s1"], gid=drawing.tip("a < b", {"repository": 'x"<y'}))
    assert 'role="group"' in drawing.svg
    assert (
        '<g class="pick" tabindex="0" role="button" aria-label="a &lt; b" data-repository="x&#34;&lt;y">' in drawing.svg
    )


def test_points_on_an_axis_are_whole():
    nothing = m.Estimate(value=0.0, low=0.0, high=0.4, n=6, n_tasks=6, clusters="function", n_clusters=6)
    point = charts.Point(0.0, nothing, nothing, nothing, is_best=True)
    svg = str(charts.trade_off([charts.Series("a", "s1", [point])]))
    assert "a, greedy: fixed 0.0 %" in svg
    assert not re.search(r"<g clip-path[^>]*>\s*<use", svg)
