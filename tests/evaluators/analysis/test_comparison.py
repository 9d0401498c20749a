import json
import math

import numpy as np
import pandas as pd
import pytest

from regrade.datasets.errors import UserError
from regrade.evaluators.analysis import metrics
from regrade.evaluators.analysis.comparison import compare, compare_family, noise_floor, outcomes
from regrade.evaluators.analysis.missing_attempts import with_missing_attempts
from regrade.evaluators.analysis.uncertainty import mcnemar_p
from regrade.evaluators.storage.rows import COLUMNS, LOST, table


def rows_of(policy, fix_rate, break_rate, *, tasks=300, samples=2, seed=0, temperature=0.0, **changes):
    """Attempts of a simulated policy on the same tasks of 100 functions, whose difficulty every policy shares."""
    rng, shared = np.random.default_rng(seed), np.random.default_rng(99)
    ease, risk = shared.uniform(0, 2, size=tasks), shared.uniform(0, 2, size=tasks)
    rows = []
    for task in range(tasks):
        for sample in range(samples):
            fix = int(rng.random() < fix_rate * ease[task])
            broke = int(rng.random() < break_rate * risk[task])
            rows.append(
                dict.fromkeys(COLUMNS, "")
                | {
                    "policy": policy,
                    "task": f"t{task}",
                    "repository": "r",
                    "function": f"f{task % 100}",
                    "temperature": temperature,
                    "sample": sample,
                    "seed": seed,
                    "empty": fix_rate == break_rate == 0,
                    "well_formed": True,
                    "applied": True,
                    "status": "scored",
                    "reward": float(fix),
                    "fix": fix,
                    "fail_to_pass": 1,
                    "fixed": fix,
                    "guarded": 100,
                    "broken": broke,
                    "newly_skipped": 0,
                    "broke": broke,
                    "clean_fix": int(fix and not broke),
                    "tampering": None,
                    "tokens": 1,
                    "generation_seconds": 0.0,
                    "execution_seconds": 0.0,
                    "changed_lines": 2,
                    "broken_tests": [],
                    "parts": [],
                }
                | changes
            )
    return table(rows)


BASELINE = rows_of("sft", 0.15, 0.10)


@pytest.mark.parametrize(
    ("fix_rate", "break_rate", "verdict", "reason"),
    [
        (0.30, 0.08, "improved", "It fixes more and is non-inferior on breakage (margin 2 points): "),
        (0.20, 0.02, "improved", "fixes more and breaks less"),
        (0.05, 0.10, "regressed", "It fixes less"),
        (0.05, 0.02, "regressed", "It breaks less, but fixes less: "),
        (0.15, 0.25, "regressed", "It breaks more"),
        (0.45, 0.25, "regressed", "It fixes more, but breaks more: "),
        (
            0.15,
            0.10,
            "no difference shown",
            "It is not shown to differ, nor to be non-inferior on fixes or on breakage",
        ),
    ],
)
def test_verdicts(fix_rate, break_rate, verdict, reason):
    found = compare(BASELINE, rows_of("rl", fix_rate, break_rate, seed=1))
    assert found.verdict == verdict
    assert reason in found.reason
    assert (found.baseline, found.candidate, found.clusters) == ("sft", "rl", "function")
    assert json.loads(json.dumps(found.to_json()))["metrics"]["fix_rate"]["n_tasks"] == 300


def test_breaking_less_is_an_improvement_if_fixing_is_shown_to_hold():
    careful = rows_of("rl", 0.15, 0.02, seed=2)
    assert compare(BASELINE, careful, margin=0.0).verdict == "inconclusive"
    found = compare(BASELINE, careful, margin=0.1)
    assert found.verdict == "improved"
    assert "breaks less and is non-inferior on fixes (margin 10 points)" in found.reason


def test_doing_nothing_does_not_win():
    nothing = compare(BASELINE, rows_of("no-op", 0, 0, seed=1))
    assert nothing.metrics["breakage_incidence"].verdict == "better"
    assert nothing.metrics["no_op_rate"].candidate == 1.0
    assert nothing.verdict == "regressed"


def test_a_gain_without_proof_that_breakage_stays_within_the_margin_is_none():
    candidate = rows_of("rl", 0.30, 0.11, seed=3)
    strict, lenient = compare(BASELINE, candidate, margin=0.0), compare(BASELINE, candidate, margin=0.2)
    assert strict.metrics["breakage_incidence"].high > 0
    assert strict.verdict == "inconclusive"
    assert strict.words == "inconclusive (fixes more, non-inferiority on breakage not shown)"
    assert "It fixes more, but is not shown to be non-inferior on breakage (margin 0 points): " in strict.reason
    assert strict.to_json()["decision"] == {"fixing": "better", "breaking": "open", "detail": strict.words[14:-1]}
    assert lenient.verdict == "improved"


def test_a_policy_against_itself_shows_nothing():
    same = compare(BASELINE, BASELINE)
    assert same.verdict == "no difference shown"
    assert same.metrics["fix_rate"].difference == 0
    assert same.metrics["fix_rate"].p == 1
    assert same.metrics["fix_rate"].low < 0 < same.metrics["fix_rate"].high


def test_swapping_the_two_mirrors_every_difference():
    other = rows_of("rl", 0.30, 0.05, seed=1)
    there, back = compare(BASELINE, other), compare(other, BASELINE)
    assert (there.verdict, back.verdict) == ("improved", "regressed")
    for name, value in there.metrics.items():
        assert value.difference == pytest.approx(-back.metrics[name].difference)
        assert value.low == pytest.approx(-back.metrics[name].high, abs=0.003)
        assert value.p == pytest.approx(back.metrics[name].p)


def test_holm_covers_the_metrics_that_the_verdict_does_not_depend_on():
    found = compare(BASELINE, rows_of("rl", 0.2, 0.1, seed=1)).metrics
    family = [value for value in found.values() if value.better != "neither" and not value.is_decisive]
    assert all(value.p_holm >= value.p for value in family)
    assert min(v.p_holm for v in family) == pytest.approx(min(1, len(family) * min(v.p for v in family)))
    for name in ("no_op_rate", "fix_and_clean", "breakage_incidence"):
        assert found[name].p_holm == found[name].p


@pytest.mark.parametrize("seed", range(1, 6))
def test_no_metric_is_better_or_worse_beside_a_p_that_says_otherwise(seed):
    """`p (Holm) 0.234 ... worse` was one row, under the verdict *regressed*."""
    for value in compare(BASELINE, rows_of("rl", 0.19, 0.12, seed=seed)).metrics.values():
        is_shown = value.verdict != "no difference shown"
        assert is_shown == (value.better != "neither" and value.p_holm <= 0.05 and not value.low <= 0 <= value.high)


def test_mcnemar_stands_beside_only_with_one_attempt_a_task():
    first, second = rows_of("sft", 0.15, 0.1, samples=1), rows_of("rl", 0.3, 0.1, samples=1, seed=1)
    both = outcomes(first, second)
    lost, won = (both["baseline"] > both["candidate"]).sum(), (both["baseline"] < both["candidate"]).sum()
    assert compare(first, second).mcnemar == mcnemar_p(int(lost), int(won))
    assert compare(BASELINE, second).mcnemar is None


def test_detectable_effect_shrinks_with_tasks():
    few = compare(rows_of("a", 0.15, 0.1, tasks=100), rows_of("b", 0.15, 0.1, tasks=100, seed=1))
    many = compare(rows_of("a", 0.15, 0.1, tasks=1600), rows_of("b", 0.15, 0.1, tasks=1600, seed=1))
    ratio = few.metrics["fix_rate"].detectable / many.metrics["fix_rate"].detectable
    assert 2.5 < ratio < 6


def test_what_cannot_be_compared():
    def reason(candidate):
        found = compare(BASELINE, candidate)
        assert found.verdict == "not comparable"
        assert not found.metrics
        return found.reason

    assert "not evaluated on the same tasks: 300 and 299, of which 1" in reason(rows_of("rl", 0.15, 0.1, tasks=299))
    assert "300 tasks have different files or tests" in reason(rows_of("rl", 0.15, 0.1, task_digest="other"))
    lost = rows_of("rl", 0.15, 0.1)
    lost.loc[:39, ["fix", "broke", "clean_fix", "broken"]] = math.nan
    assert "7% of the candidate's attempts are missing" in reason(lost)
    assert "75 of the candidate's rows repeat the attempt of another row" in reason(
        pd.concat([BASELINE, BASELINE[:75]])
    )
    nothing_to_fix = BASELINE.assign(fix=math.nan, clean_fix=math.nan)
    assert "FAIL_TO_PASS" in compare(nothing_to_fix, nothing_to_fix).reason
    single = compare(*(rows_of(name, 0.2, 0.1, tasks=1) for name in "ab"))
    assert "single cluster" in single.reason


@pytest.mark.parametrize("fate", ["lost", "absent"])
def test_a_policy_that_loses_its_bad_attempts_has_not_improved(fate):
    same = BASELINE.assign(policy="rl")
    bad = same[same["broke"] == 1].drop_duplicates("task", keep=False).index[:30]  # no task loses all of its own
    candidate = same.drop(bad)
    if fate == "lost":
        candidate = same.copy()
        candidate.loc[bad, ["fix", "broke", "clean_fix", "broken"]] = math.nan
    found = compare(BASELINE, candidate)
    assert found.metrics["breakage_incidence"].verdict == "better", "what is left looks better"
    assert (found.verdict, found.best) == ("inconclusive", "improved")
    assert "depends on missing attempts" in found.reason
    better = rows_of("rl", 0.5, 0.05, seed=1)
    better.loc[:9, ["fix", "broke", "clean_fix", "broken"]] = math.nan
    assert compare(BASELINE, better).verdict == "improved", "a gain that no missing attempt could undo is one"


def test_a_few_lost_attempts_are_excluded_and_reported():
    lost = rows_of("rl", 0.15, 0.1)
    lost.loc[:9, ["fix", "broke", "clean_fix", "broken"]] = math.nan
    found = compare(BASELINE, lost)
    assert found.metrics["fix_rate"].n_tasks == 295
    assert any("10 attempts are missing" in warning for warning in found.warnings)


def test_mixed_tables_are_refused():
    hot = rows_of("sft", 0.1, 0.1, temperature=1.0)
    mixed = table([*BASELINE.to_dict("records"), *hot.to_dict("records")])
    with pytest.raises(UserError, match=r"several values of temperature \(0.0, 1.0\): keep the rows of one temp"):
        compare(BASELINE, mixed)
    with pytest.raises(UserError, match="the baseline has no rows"):
        compare(table([]), BASELINE)
    with pytest.raises(UserError, match="margin is a share"):
        compare(BASELINE, BASELINE, margin=2)


def test_noise_floor_compares_a_policy_with_itself():
    floor = noise_floor(BASELINE)
    assert floor is not None
    assert floor.n_baseline == floor.n_candidate == 300
    assert 0 < abs(floor.metrics["fix_rate"].difference) < 0.08
    assert noise_floor(rows_of("sft", 0.15, 0.1, samples=1)) is None


def test_a_handful_of_tasks_that_differ_is_no_difference():
    """Four tasks of 300 newly broken, none fixed: McNemar's mid-p is 0.06, and 0.03 with five."""
    first = rows_of("sft", 0.3, 0.0, samples=1)
    first = first.assign(function=first["task"])
    second = first.assign(policy="rl")
    second.loc[:3, ["broke", "broken"]] = 1.0
    found = compare(first, second).metrics["breakage_incidence"]
    assert found.low < 0 < found.difference
    assert 0.05 < found.p < mcnemar_p(0, 4)
    assert found.verdict == "no difference shown"
    second.loc[:4, ["broke", "broken"]] = 1.0
    assert compare(first, second).metrics["breakage_incidence"].verdict == "worse"


def test_where_nothing_differs_something_could_have_been_missed():
    first = rows_of("sft", 0.3, 0.0, samples=1)
    found = compare(first, first.assign(policy="rl")).metrics["fix_and_clean"]
    assert found.difference == 0
    assert 0.01 < found.detectable < 0.1


def test_other_repositories_are_a_second_claim_at_every_number_of_repositories():
    first, second = BASELINE, rows_of("rl", 0.3, 0.1)
    for count in (2, 3, 5, 6, 7, 40):
        names = {f"t{n}": f"r{n % count}" for n in range(300)}
        found = compare(*(rows.assign(repository=rows["task"].map(names)) for rows in (first, second)))
        clean = found.metrics["fix_and_clean"]
        assert (found.clusters, found.n_repositories) == ("function", count)
        assert found.n_clusters == len({(n % count, n % 100) for n in range(300)})
        assert clean.over_repositories.low <= clean.low < clean.high <= clean.over_repositories.high
    assert compare(first, second).metrics["fix_and_clean"].over_repositories is None, "a single repository"


def test_fewer_than_seven_clusters_can_show_nothing():
    first, second = (rows_of(name, rate, 0.0, tasks=6) for name, rate in (("a", 0.0), ("b", 3.0)))
    found = compare(first, second)
    assert found.metrics["fix_rate"].difference > 0.9
    assert found.verdict == "no difference shown"
    assert found.metrics["fix_rate"].detectable == math.inf
    assert any("6 clusters of tasks cannot show" in warning for warning in found.warnings)
    seven = compare(*(rows_of(name, rate, 0.0, tasks=7) for name, rate in (("a", 0.0), ("b", 50.0))))
    assert seven.metrics["fix_and_clean"].verdict == "better"


def test_absent_attempts_are_missing_ones():
    whole = rows_of("rl", 0.15, 0.1)
    some = whole.drop(index=[0, 7, 12])
    found = compare(BASELINE, some)
    assert found.n_missing == 3
    assert (found.worst, found.best) == ("no difference shown", "no difference shown")
    clean = found.metrics["fix_and_clean"]
    assert clean.worst < clean.difference < clean.best or clean.worst <= clean.best
    assert clean.best - clean.worst == pytest.approx(3 / 600)
    assert found.metrics["breakage_incidence"].worst >= found.metrics["breakage_incidence"].best
    assert with_missing_attempts(whole) is whole
    assert len(with_missing_attempts(some)) == len(whole)
    assert with_missing_attempts(some)["task"].nunique() == 300


def test_bounds_put_what_is_lost_at_either_end_of_each_metric():
    lost = rows_of("rl", 0.15, 0.1, tasks=2, samples=1)
    lost.loc[0, ["fix", "broke", "clean_fix", "broken"]] = math.nan
    for metric in (metrics.FIX_AND_CLEAN, metrics.FIXED_BUT_BROKE, metrics.SEVERITY, metrics.NET_VALUE):
        worst, best = (metrics.bounded_values(lost, metric, end) for end in metric.ends)
        assert (worst[0], best[0]) == metric.ends
        assert worst[1] == best[1] == metric.of_rows(lost)[1]
    unguarded = lost.assign(guarded=0)
    assert metrics.bounded_values(unguarded, metrics.SEVERITY, 1.0).isna().all(), "no guarded test can be broken"
    unanswered = lost.assign(patch_digest=LOST)
    broke = metrics.BREAKAGE_INCIDENCE
    assert metrics.bounded_values(unanswered, broke, 1.0)[0] == 1
    assert math.isnan(metrics.bounded_values(unanswered, broke, 1.0, may_be_unanswered=False)[0])


def lose(rows, count, **changes):
    rows = rows.copy()
    rows.loc[: count - 1, ["fix", "broke", "clean_fix", "broken", "fixed", "newly_skipped"]] = math.nan
    return rows.assign(**{name: rows[name].mask(rows["broke"].isna(), value) for name, value in changes.items()})


def test_attempts_lost_before_an_answer_are_left_out_and_others_are_bounded():
    """Both sides lose 1 %: without an answer there was no patch to break anything."""
    candidate = rows_of("rl", 0.30, 0.05, seed=1)
    assert compare(BASELINE, candidate).verdict == "improved"
    known = compare(lose(BASELINE, 6, patch_digest=LOST), lose(candidate, 6, patch_digest=LOST))
    assert (known.n_missing, known.verdict, known.worst, known.best) == (12, "improved", "improved", "improved")
    assert any("12 of them were lost before there was an answer" in warning for warning in known.warnings)
    unknown = compare(lose(BASELINE, 30), lose(candidate, 30))
    assert unknown.verdict == "inconclusive"
    assert unknown.worst != "improved"
    broke = unknown.metrics["fixed_but_broke"]
    assert broke.worst - broke.best == pytest.approx(60 / 600)


def test_pairs_are_the_two_by_two_table_of_one_attempt_each():
    first, second = rows_of("sft", 0.15, 0.1, samples=1), rows_of("rl", 0.3, 0.1, samples=1, seed=1)
    found = compare(first, second)
    pairs = found.pairs["fix_and_clean"]
    assert pairs.both + pairs.only_baseline + pairs.only_candidate + pairs.neither == 300
    difference = (pairs.only_candidate - pairs.only_baseline) / 300
    assert found.metrics["fix_and_clean"].difference == pytest.approx(difference)
    assert pairs.low < difference < pairs.high
    assert found.mcnemar == pairs.p
    assert not compare(BASELINE, second).pairs


def test_many_candidates_are_judged_as_a_family():
    """Holm: the first at 1 - 0.05 / 10, and all others at the level where the method stops."""
    strong = rows_of("strong", 0.30, 0.08, seed=1)
    equal = [rows_of(f"equal{n}", 0.15, 0.1, seed=n + 2) for n in range(3)]
    found = compare_family(BASELINE, [*equal, strong])
    assert [one.family for one in found] == [4] * 4
    assert [one.candidate for one in found] == ["equal0", "equal1", "equal2", "strong"]
    assert found[3].confidence == pytest.approx(1 - 0.05 / 4)
    assert all(one.confidence == pytest.approx(1 - 0.05 / 3) for one in found[:3])
    assert found[3].verdict == compare(BASELINE, strong).verdict == "improved"
    alone = compare(BASELINE, equal[0]).metrics["fix_and_clean"]
    wider = found[0].metrics["fix_and_clean"]
    assert wider.low < alone.low < alone.high < wider.high
    assert compare_family(BASELINE, [strong])[0] == compare(BASELINE, strong)


def single(policy, fix, broke, repositories):
    """One attempt a task."""
    rows = rows_of(policy, 0.0, 0.0, tasks=len(fix), samples=1)
    fix, broke = np.asarray(fix, dtype=float), np.asarray(broke, dtype=float)
    names = [f"r{n}" for n in repositories]
    return rows.assign(
        policy=policy, repository=names, function=rows["task"], empty=False, fix=fix, fixed=fix, broke=broke,
        broken=broke, clean_fix=fix * (1 - broke), reward=fix * (1 - broke),
    )  # fmt: skip


@pytest.mark.parametrize("repositories", [5, 6, 7])
def test_a_reckless_policy_is_caught_at_five_six_and_seven_repositories(repositories):
    """A third of its patches break in all repositories but one, where none does."""
    places = np.repeat(np.arange(repositories), 30)
    broke = ((np.arange(places.size) % 3) == 0) & (places > 0)
    ones, zeros = np.ones(places.size), np.zeros(places.size)
    found = compare(single("base", ones, zeros, places), single("cand", ones, broke, places))
    breakage = found.metrics["breakage_incidence"]
    assert found.verdict == "regressed"
    assert breakage.verdict == "worse"
    assert breakage.low > 0.15
    assert breakage.generalises


def test_a_policy_can_win_where_nobody_breaks_anything():
    """40 of 100 more tasks fixed, over 40 repositories; then it breaks one test, and then three."""
    places = np.repeat(np.arange(40), 5)
    gains = np.tile([1, 1, 0, 0, 0], 40)
    zeros = np.zeros(200)
    base = single("base", zeros, zeros, places)
    found = compare(base, single("cand", gains, zeros, places))
    breakage = found.metrics["breakage_incidence"]
    assert found.verdict == "improved"
    assert -0.02 < breakage.low < -0.015
    assert breakage.high == -breakage.low
    clean = found.metrics["fix_and_clean"]
    assert clean.high - clean.low > 0.1, "repositories that agree say nothing of the tasks"
    verdicts = []
    for count in (1, 3):
        broke = zeros.copy()
        broke[:count] = 1
        verdicts.append(compare(base, single("cand", gains, broke, places)).verdict)
    assert verdicts == ["inconclusive"] * 2, "more breakage never turns into an improvement"


def test_the_worst_and_the_best_case_know_the_variance_between_runs():
    """Runs that differ by 40 points: a missing attempt of 600 cannot turn an open verdict into one in both cases."""
    first, second = (
        pd.concat(
            [rows_of(name, rate, 0.0, tasks=200, samples=1, seed=seed) for seed, rate in enumerate(rates)]
        ).reset_index(drop=True)
        for name, rates in (("sft", (0.35, 0.45, 0.40)), ("rl", (0.45, 0.25, 0.20)))
    )
    whole = compare(first, second)
    assert whole.verdict == "no difference shown"
    assert whole.metrics["fix_and_clean"].between_runs > 0.05
    found = compare(first, lose(second, 1))
    assert (found.verdict, found.worst, found.best) == ("no difference shown",) * 3


def test_a_side_without_breakage_does_not_seem_to_fix_more():
    first, second = (rows_of(name, 0.4, 0.3, seed=seed) for seed, name in enumerate(("sft", "rl")))
    found = compare(first, second.assign(broke=math.nan, clean_fix=second["fix"]))
    clean, plain = found.metrics["fix_and_clean"], found.metrics["fix_rate"]
    assert (clean.low, clean.high) == (plain.low, plain.high)
    assert found.verdict == "no difference shown"
    assert any("contains the breakage of 300 of 300 tasks" in warning for warning in found.warnings)
    half = second["task"].isin([f"t{n}" for n in range(150)])
    partly = second.assign(broke=second["broke"].mask(half), clean_fix=second["clean_fix"].mask(half, second["fix"]))
    assert compare(first, partly).metrics["fix_and_clean"].verdict == "no difference shown"
    stated = compare(first, second.assign(broke=math.nan, fix=math.nan)).metrics["fix_and_clean"]
    assert stated.difference == pytest.approx(second["clean_fix"].mean() - first["clean_fix"].mean())
