"""The page of a training shows every logged number, alarms, and attempts, and needs no network."""

from __future__ import annotations

import json

import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.run import Run
from regrade.reports.training_page import write_training_report


def test_every_number_alarm_and_attempt_is_on_the_page(tmp_path):
    run = Run(tmp_path / "my-run")
    run.configure({"algorithm": "grpo", "settings": {"learning_rate": 2e-5}})
    with run.phase("grpo"):
        for step in range(1, 7):
            numbers = {"loss": 0.1 * step, "reward/tests/mean": 0.5, "odd <number>": 1.0, "execution_seconds": 2.0}
            if step == 4:
                numbers["traces/fixes"] = 17.0
            if step == 3:
                numbers |= {"alarm/grad_norm": 55.0, "alarms": 1.0, "rollbacks": 1.0, "rolled_back_to": 2.0}
            if step == 5:
                numbers |= {"alarm/not_finite": float("nan"), "loss": float("nan")}
            run.log("grpo", step, 1.5 * step, entropy=10.8211 - 0.0001 * step, **numbers)
    run.log("reward-model-test", 1, 0.0, auc=0.75)
    attempt = {"task_id": "more-1", "text": "4 return <x>", "patch": "--- a/m.py\n+++ b/m.py\n@@ -1 +1 @@\n-a\n+b\n"}
    rows = [{"step": 1, "outcome": "clean fix", "reward": 1.0}, {"step": 4, "outcome": "breakage", "reward": -1.2}]
    run.samples.write_text("".join(json.dumps(attempt | row) + "\n" for row in rows))
    page = write_training_report(run.folder).read_text()
    for title in ("loss", "reward/tests/mean", "odd &lt;number&gt;", "execution_seconds"):
        assert f"<h3>{title}</h3>" in page
    assert "<h3>alarms</h3>" not in page
    assert "<title>entropy: 10.821 to 10.82</title>" in page, "with the digits that tell them apart"
    assert "<h3>traces/fixes</h3>" not in page, "a number that was logged once is no curve"
    assert "<dt>traces/fixes</dt><dd>17</dd>" in page
    assert "step 3: grad norm (55); back to step 2" in page
    assert "step 5: not finite (not finite)" in page
    assert "loss was not finite at step 5" in page
    assert page.count("<title>step 3: alarm and rollback</title>") == page.count("<title>step 5: alarm</title>") == 6
    assert "auc" in page
    assert "Step 4: more-1: breakage, reward" in page
    assert "4 return &lt;x&gt;" in page
    assert "settings.learning_rate" in page
    assert "http" not in page.replace("http://www.w3.org/", "").replace("http-equiv", "")


def test_what_has_no_noise_is_drawn_as_it_is_and_a_group_of_one_takes_no_row(tmp_path):
    run = Run(tmp_path / "my-run")
    for step in range(1, 25):
        run.log("sft", step, 2.0 * step, loss=1 / step, learning_rate=1e-4 if step > 1 else 0.0)
    page = write_training_report(run.folder).read_text()
    assert "learning_rate: 0 to 0.0001" in page  # its running mean would begin at a half of it
    assert "seconds: 2 to 48" in page
    assert "loss: 1 to" not in page
    assert '<h3 class="phase">time</h3>' not in page  # of which there are seconds alone


def test_what_is_logged_at_some_steps_only_is_one_line_with_dots_over_all_steps(tmp_path):
    run = Run(tmp_path / "my-run")
    for step in range(1, 17):
        run.log("grpo", step, 2.0 * step, loss=0.1, **({"reward": 0.1 * step} if step in (1, 9) else {}))
    page = write_training_report(run.folder).read_text()
    chart = page[page.index("<h3>reward</h3>") : page.index("<h3>loss</h3>")]
    assert "reward: 0.1 to 0.9" in chart
    assert chart.count("<use ") > page[page.index("<h3>loss</h3>") :].partition("</svg>")[0].count("<use ")


def test_numbers_of_any_size_leave_a_page(tmp_path):
    run = Run(tmp_path / "my-run")
    for step in range(1, 5):
        run.log("sft", step, 2.0 * step, loss=1e308 * (-1) ** step if step > 2 else 1.0, **{"all/of it": 1e308})
    page = write_training_report(run.folder).read_text()
    assert "loss was too large to draw at step 3, 4" in page
    assert "all/of it was too large to draw at step 1, 2, 3, 4" in page


def test_a_run_without_a_training_log_is_one_line(tmp_path):
    Run(tmp_path)
    with pytest.raises(UserError, match="has no training log: give a folder that `regrade train` wrote"):
        write_training_report(tmp_path)
