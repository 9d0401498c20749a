import io
import json
import shutil

import pytest
from rich.console import Console

from regrade.datasets.errors import UserError
from regrade.evaluators.storage.run import Run
from regrade.reports.results import load_results
from regrade.reports.summary import summary
from regrade.reports.terminal import print_policies, print_results


def test_figures_are_those_of_the_rows(finished_run):
    found = summary(finished_run)
    assert json.loads((finished_run / "summary.json").read_text()) == found
    sft, rl, nothing = (found["policies"][name] for name in ("sft", "rl", "no-op"))
    assert sft["fix_rate"]["value"] == pytest.approx(4 / 12)
    assert sft["fix_and_clean"]["value"] == pytest.approx(3 / 12)
    assert sft["breakage_incidence"]["value"] == pytest.approx(3 / 12)
    assert sft["no_op_rate"] == pytest.approx(6 / 12)
    assert (sft["temperature"], rl["temperature"]) == (0.0, 0.7)
    assert sft["greedy"]["fix_rate"] == sft["fix_rate"]
    assert rl["fix_rate"]["value"] == pytest.approx(4 / 12)  # every second sample at its own temperature is a no-op
    assert rl["greedy"]["fix_rate"]["value"] == pytest.approx(8 / 12)
    assert (rl["fix_rate"]["n"], rl["fix_rate"]["n_tasks"]) == (24, 12)
    assert nothing["no_op_rate"] == 1.0
    assert nothing["breakage_incidence"]["value"] == 0.0
    for policy in found["policies"].values():
        for metric in ("fix_rate", "breakage_incidence", "fix_and_clean"):
            assert 0 <= policy[metric]["low"] <= policy[metric]["value"] <= policy[metric]["high"] <= 1


def test_comparisons_phases_and_shares_are_there(finished_run):
    found = summary(finished_run)
    assert set(found["comparison"]) == {"rl_vs_sft", "rl_vs_control"}
    pair = found["comparison"]["rl_vs_sft"]
    assert pair["verdict"] in ("improved", "no difference shown")
    clean = pair["fix_and_clean"]
    assert clean["difference"] == pytest.approx(1 / 12)
    assert clean["low"] < clean["difference"] < clean["high"]
    assert {"p", "verdict", "baseline", "candidate", "noise", "detectable"} <= set(clean)
    assert pair["missing"] == 0
    assert found["noise_floor"]["verdict"] == "no difference shown"
    assert found["share_of_step"] == {"execution": 0.25, "generation": 0.5, "training": 0.25}
    assert set(found["phases"]) == {f"evaluation of {name}" for name in found["policies"]}
    assert all(seconds > 0 for seconds in found["phases"].values())


def test_an_unfinished_run_shows_what_it_has(finished_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    run = Run(folder)
    run.evaluation("control").unlink()
    run.add_policy("sft", "baseline", best_temperature=0.3, label="SFT")
    results = load_results(folder)
    assert [pair.key for pair in results.pairs] == ["rl_vs_sft"]
    assert results.remarks == (
        "SFT has no rows at its best temperature, 0.3: the report shows its figures at 0.",
        "SFT, equal time has no evaluation on the tasks.",
    )
    assert summary(folder)["policies"]["sft"]["temperature"] == 0.0
    for name in ("sft", "rl", "no-op"):
        run.evaluation(name).unlink()
    with pytest.raises(UserError, match="no policy of this run has been evaluated yet"):
        summary(folder)


def test_comparisons_have_the_margin_that_was_declared(finished_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    Run(folder).update(configuration={"comparison": {"margin": 0.3}, "continued_with": {"pytest": "8.0"}})
    with Run(folder).evaluation("rl").open("a") as file:
        file.write('{"policy": "rl"')
    found = load_results(folder)
    assert {pair.best.margin for pair in found.pairs} == {0.3}
    assert summary(folder)["comparison"]["rl_vs_sft"]["margin"] == 0.3
    assert any("the run was started with pytest" in remark for remark in found.remarks)
    assert any("rl.jsonl ends in an incomplete line" in remark for remark in found.remarks)


def test_all_figures_of_a_policy_stand_in_the_summary(finished_run):
    sft = summary(finished_run)["policies"]["sft"]["metrics"]
    assert sft["fix_rate"]["value"] == pytest.approx(4 / 12)
    assert sft["severity_tail"]["catastrophes"] == 0.0
    assert sft["breakage_by_hops"]["1"]["value"] == pytest.approx(3 / 12)
    assert sft["broken_tests_by_hops"]["1"] == 3
    assert sft["cross_module_breakage"]["value"] == 0.0
    assert sft["touches_function"]["value"] == pytest.approx(4 / 6)
    assert sft["net_value_sweep"]["1"]["value"] == pytest.approx(1 / 12)
    assert sft["build_failed"]["value"] == 0.0


def test_several_candidates_keep_their_own_names(finished_run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    run = Run(folder)
    rows = run.evaluation("rl").read_text()
    run.evaluation("rl-2").write_text(rows.replace('"policy": "rl"', '"policy": "rl-2"'))
    run.add_policy("rl-2", "candidate", best_temperature=0.7)
    pairs = load_results(folder).pairs
    assert [pair.key for pair in pairs] == ["rl_vs_sft", "rl-2_vs_sft", "rl_vs_control", "rl-2_vs_control"]
    assert {pair.best.family for pair in pairs} == {2}, "false verdicts would add up over the candidates"
    stream = io.StringIO()
    print_results(load_results(folder), Console(file=stream, width=120))
    told = " ".join(stream.getvalue().split())
    assert "one of 2 candidates: by Holm's method its intervals and its verdict are at 97.5 % confidence" in told
    assert "97.5 % interval" in told


def test_noise_floor_is_the_baseline_against_itself(finished_run):
    floor = load_results(finished_run).noise_floor
    assert floor is not None
    assert (floor.baseline, floor.n_baseline, floor.n_candidate) == ("SFT", 12, 12)


def test_attempts_that_tamper_with_the_evaluation_are_counted_by_kind(finished_run, tmp_path):
    assert summary(finished_run)["policies"]["sft"]["tampering"] == {"looked_at": 36, "attempts": 0, "kinds": {}}
    folder = tmp_path / "copy"
    shutil.copytree(finished_run, folder)
    path = Run(folder).evaluation("rl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"tampering": 2, "tampering_kinds": ["equal to everything", "leaves at import"]}
    rows[1] |= {"tampering": 1, "tampering_kinds": ["equal to everything"]}
    for row in rows[2:]:
        del row["tampering_kinds"]  # as earlier versions wrote them
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = summary(folder)["policies"]["rl"]["tampering"]
    assert found == {"looked_at": len(rows), "attempts": 2, "kinds": {"equal to everything": 2, "leaves at import": 1}}
    stream = io.StringIO()
    print_policies(load_results(folder), Console(file=stream, width=100))
    said = " ".join(stream.getvalue().split())
    counted = "tampered with the evaluation in 2 of"
    assert f"{counted} {len(rows)} attempts: equal to everything 2, leaves at import 1" in said
    assert "SFT tampered with the evaluation in 0 of 36 attempts" in said
