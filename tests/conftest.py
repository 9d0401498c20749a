"""What all tests share: their order, and what is looked up once for all."""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from regrade.evaluators.execution import environments, warm_start
from regrade.evaluators.sandboxes.interpreters import plain_path
from regrade.evaluators.scoring import worker_pool
from regrade.evaluators.task_curation import baseline_cache

HERE = Path(__file__).resolve().parent

if "PYTEST_XDIST_WORKER" in os.environ:
    # Each of the processes side by side has about one core. Read when torch is imported, also by the commands that
    # tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")


LONGEST = """
    evaluators/verification/test_assurance_levels evaluators/scoring/test_scorer policy_training/test_resuming
    evaluators/task_curation/test_local_repository evaluators/task_curation/test_classified_files
    policy_training/test_gpt_oss evaluators/task_curation/test_tested_copy evaluators/scoring/test_warm_and_cold
    evaluators/execution/test_containers policy_training/study/test_running evaluators/analysis/test_verdicts
    evaluators/task_curation/test_task_sets evaluators/execution/test_worker cli/test_score
    policy_training/demo/test_pipeline evaluators/static/test_hostile_files evaluators/scoring/test_ray_scorer
    evaluators/verification/test_honest_styles cli/test_patch_forms evaluators/task_curation/test_baseline
    cli/test_evaluate evaluators/task_curation/test_chosen_tests evaluators/verification/test_tripwires
    policy_training/policies/test_embedded_model policy_training/test_two_processes cli/test_stopping
    evaluators/task_curation/test_checkup reports/test_html gauntlet/test_gauntlet
    evaluators/verification/test_held_out_inputs gauntlet/test_ranking cli/test_without_torch
    evaluators/hardening/test_hardening policy_training/variants/test_running cli/test_activity_on_a_terminal
    policy_training/trainers/test_known_optimum rewards/test_conformance evaluators/verification/test_answer_checks
    cli/test_rewards gauntlet/test_honest evaluators/sandboxes/test_channels cli/test_main cli/test_bad_inputs
    policy_training/trainers/test_trl_contract cli/test_compare evaluators/attribution/test_hunk_attribution
    policy_training/trainers/test_online cli/test_train evaluators/sandboxes/test_sandboxes
    evaluators/execution/test_environments policy_training/trainers/test_stability evaluators/analysis/test_comparison
    evaluators/execution/test_hanging_tests cli/test_doctor reports/test_summary reports/test_result_charts
    policy_training/cascade/test_cascade datasets/mutation/test_recipes policy_training/environments/test_agent_policy
    policy_training/reward_models/test_training policy_training/test_training cli/test_full_disk
    evaluators/scoring/test_own_probes evaluators/task_curation/test_project_wheel
    evaluators/task_curation/test_mutation_tasks cli/test_gate cli/test_logs
    policy_training/trainers/test_induced_failures evaluators/inside/recording/test_chance
    datasets/test_generated_patches
"""
"""The test files that take more than thirty seconds, about in the order of their time."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one process, the quick tests first. Side by side, where each process takes file after file: the longest files
    first, then those with slow tests, so that no process ends alone with a long file."""
    if not hasattr(config, "workerinput"):
        items.sort(key=_is_slow)
        return
    places = {HERE / f"{path}.py": place for place, path in enumerate(LONGEST.split())}
    slow = {item.path for item in items if _is_slow(item)}
    items.sort(
        key=lambda item: (places.get(item.path, len(places)), item.path not in slow, str(item.path), _is_slow(item))
    )


def _is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


def pytest_configure() -> None:
    """A shell starts background jobs with SIGINT ignored, and what they start inherits it: Ctrl-C is tested here."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def lookups_of_this_interpreter() -> Iterator[None]:
    """No test installs anything into the interpreter that runs the tests, so its 40,000 files are read once a session,
    not at each of a thousand lookups; as are its plugins. The lookups of every other interpreter are as ever."""
    this = plain_path(Path(sys.executable))
    read, plugins, look_ahead = environments._read_installed, environments.pytest_plugins, environments.look_ahead
    read_once, plugins_once = functools.cache(read), functools.cache(plugins)

    def look_ahead_at_others(python: Path) -> None:
        if python != this:
            look_ahead(python)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environments, "_read_installed", lambda python: (read_once if python == this else read)(python))
        patch.setattr(
            environments, "pytest_plugins", lambda python: dict((plugins_once if python == this else plugins)(python))
        )
        patch.setattr(environments, "look_ahead", look_ahead_at_others)
        yield


@pytest.fixture(scope="session", autouse=True)
def shared_preparations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever its cache, a scorer finds the preparation of a suite (byte code, configuration) that any test of any
    process made before. Most tests have an evidence cache of their own, and few repositories: without this, each of
    them would start a sandbox and collect the tests only to prepare the same suite again."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "preparations"
    folder = warm_start.bytecode_folder

    def shared_folder(_: Path, python: Path | str, identity: str) -> Path:
        return folder(shared, python, identity)

    with pytest.MonkeyPatch.context() as patch:
        for module in (worker_pool, baseline_cache):
            patch.setattr(module, "bytecode_folder", shared_folder)
        yield


@pytest.fixture
def own_preparations(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the preparation itself: it is stored in the cache, as for users."""
    for module in (worker_pool, baseline_cache):
        monkeypatch.setattr(module, "bytecode_folder", warm_start.bytecode_folder)
