import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import pytest

from regrade.datasets.errors import RunBusyError, UserError
from regrade.evaluators.storage import journal
from regrade.evaluators.storage.file_locks import has_locks
from regrade.evaluators.storage.manifest import Phase
from regrade.evaluators.storage.run import Run


def test_manifest_survives_reopening_and_merges_mappings(tmp_path):
    run = Run(tmp_path / "demo")
    run.update(model="tiny", seeds={"training": 1})
    run.update(seeds={"evaluation": 2})
    run.add_policy("sft", "baseline", best_temperature=0.5, label="SFT")
    run.note("cut short")
    run.note("cut short")
    again = Run.open(tmp_path / "demo").manifest
    assert again == run.manifest
    assert dict(again.seeds) == {"training": 1, "evaluation": 2}
    assert again.policies["sft"].best_temperature == 0.5
    assert again.notes == ("cut short",)
    assert "pandas" in again.versions


def test_phases_add_up_over_attempts_and_only_a_good_end_finishes(tmp_path):
    run = Run(tmp_path)
    with contextlib.suppress(RuntimeError), run.phase("sft"):
        time.sleep(0.05)
        raise RuntimeError
    assert not run.finished("sft")
    first = run.manifest.phases["sft"].seconds
    assert first >= 0.05
    with Run(tmp_path).phase("sft"):
        time.sleep(0.05)
    assert run.finished("sft")
    assert run.manifest.phases["sft"].seconds >= first + 0.05
    assert list(json.loads(run.manifest_path.read_text())["phases"]) == ["sft"]


def test_a_killed_phase_keeps_its_time(tmp_path):
    program = (
        "import sys, time, pathlib; from regrade.evaluators.storage import run as runs; runs.HEARTBEAT_SECONDS = 0.05\n"
        "run = runs.Run(pathlib.Path(sys.argv[1]))\n"
        "with run.phase('rl'):\n    print('in', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    run = Run.open(tmp_path)
    deadline = time.monotonic() + 30
    while run.manifest.phases["rl"].seconds < 0.2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not run.finished("rl")
    assert 0.2 <= run.manifest.phases["rl"].seconds < 60


def test_training_log_keeps_the_last_of_a_repeated_step_and_yields_shares(tmp_path):
    run = Run(tmp_path)
    run.log("grpo", 1, 1.0, loss=float("nan"), execution_seconds=9, generation_seconds=2, training_seconds=1)
    run.log("grpo", 2, 2.0, reward=0.2)
    run.log("grpo", 1, 1.5, reward=0.3, execution_seconds=1, generation_seconds=2, training_seconds=1)
    run.log("sft", 1, 1.0, loss=2.0, training_seconds=50)
    steps = run.training()
    assert [row["reward"] for row in steps["grpo"]] == [0.3, 0.2]
    assert run.share_of_step() == {"execution": 0.25, "generation": 0.5, "training": 0.25}


def test_a_training_log_is_set_back_to_the_step_that_training_goes_on_from(tmp_path):
    run = Run(tmp_path)
    run.rewind("sft", 3)  # nothing is logged yet
    for step in (1, 2, 3, 1):  # the last is a summary, after the steps
        run.log("sft", step, 0.5 * step, loss=1 / step)
    whole = run.training_log("sft").read_text()
    with run.training_log("sft").open("a") as file:
        file.write('{"phase": "sft", "st')  # a torn line
    run.rewind("sft", 3)
    assert run.training_log("sft").read_text() == "".join(whole.splitlines(keepends=True)[:3])
    run.rewind("sft", 2)
    assert [row["step"] for row in run.training()["sft"]] == [1, 2]
    run.rewind("sft")
    assert run.training_log("sft").read_text() == ""


def test_a_run_goes_on_with_its_own_settings_alone(tmp_path):
    run = Run(tmp_path / "run")
    begun = {"model": "m", "settings": {"rate": 0.1, "sizes": (1, 2)}, "seed": 0}
    run.configure({"model": "misspelt", "more": 1})
    run.configure(begun)  # nothing was done yet
    run.log("sft", 1, 0.5)
    run.update(configuration={"comparison": {"margin": 0.05}})
    run.configure(begun)
    other = {"model": "m", "settings": {"rate": 0.2, "sizes": (1, 2)}, "agent": "a"}
    with pytest.raises(UserError) as refused:
        run.configure(other)
    assert str(refused.value) == (
        f"{tmp_path / 'run'} holds a run with other settings: settings.rate was 0.1 and is now 0.2, seed was 0 and is "
        'now null, agent was null and is now "a"; give another folder, or the settings of this run to go on with it'
    )


def test_an_unknown_share_of_a_step_is_named(tmp_path):
    run = Run(tmp_path)
    run.update(share_of_step={"execution": 0.5, "thinking": 0.5})
    with pytest.raises(UserError, match=r"manifest.json: damaged.*share_of_step.*restore it or start the run in a new"):
        run.share_of_step()


def test_names_of_policies_cannot_leave_the_run(tmp_path):
    run = Run(tmp_path)
    assert run.evaluation("../../x/y").parent == tmp_path / "evaluations"
    assert run.evaluation("org/model").name == "org_model.jsonl"


def test_names_too_long_for_a_file_stay_apart(tmp_path):
    run = Run(tmp_path)
    first, second = (run.evaluation("é" * 300 + end) for end in "ab")
    assert first != second
    journal.append(first, [{}])
    assert run.evaluation("a" * 100).name == "a" * 100 + ".jsonl"


def test_one_process_at_a_time_writes_into_a_run_and_a_killed_one_does_not(tmp_path):
    program = (
        "import sys, time, pathlib; from regrade.evaluators.storage.run import Run\n"
        "with Run(pathlib.Path(sys.argv[1])).writing():\n    print('in', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, cwd=tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == b"in\n"
    with pytest.raises(UserError, match="another process is writing into"), Run(tmp_path).writing():
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    with Run(tmp_path).writing():
        pass


def test_wrong_manifests_are_named(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        Run.open(tmp_path)
    run = Run(tmp_path)
    run.manifest_path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        _ = run.manifest
    run.manifest_path.write_text('{"policies": {"a": {"role": "boss"}}}')
    with pytest.raises(UserError, match=r"'role' must be one of 'baseline', .*boss"):
        _ = run.manifest


def test_journal_drops_a_torn_line_and_never_glues_to_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    journal.append(path, [{"a": 1}])
    with path.open("a") as file:
        file.write('{"a": 2')
    assert journal.read(path) == [{"a": 1}]
    journal.append(path, [{"a": 3}])
    assert journal.read(path) == [{"a": 1}, {"a": 3}]
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(UserError, match="line 2: not JSON"):
        journal.read(path)


def test_a_row_of_which_only_a_part_fits_is_an_error_and_counts_as_not_written(tmp_path):
    """A full disk takes the beginning of a row without a word; here the limit of a file's size stands for the disk."""
    path = tmp_path / "rows.jsonl"
    journal.append(path, [{"a": 1}])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"rows\.jsonl"):
            journal.append(path, [{"a": 2}, {"a": "x" * 2000}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert journal.read(path) == [{"a": 1}, {"a": 2}]
    journal.append(path, [{"a": 3}])
    assert journal.read(path) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_a_whole_last_line_without_a_newline_is_a_row_and_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}')
    assert journal.read(path) == [{"a": 1}]
    journal.append(path, [{"a": 2}])
    assert journal.read(path) == [{"a": 1}, {"a": 2}]
    for torn in ("1", '{"a": {"b": 1}', '"{}"'):
        path.write_text(torn)
        assert journal.read(path) == []


def test_a_doubled_key_of_a_row_or_of_the_manifest_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 1, "a": 2}\n')
    with pytest.raises(UserError, match=r'line 2: .*the key "a" occurs twice'):
        journal.read(path)
    run = Run(tmp_path / "run")
    run.manifest_path.write_text('{"name": "a", "name": "b"}')
    with pytest.raises(UserError, match=r'manifest.json:1: .*"name" occurs twice'):
        _ = run.manifest


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match=r"the run's folder '.*file/run' can't be written: Not a directory"):
        Run(file / "run")


def test_the_draft_of_a_killed_writer_is_removed_and_that_of_a_running_one_is_not(tmp_path):
    names = "from regrade.datasets.process_identity import this_process; print(this_process(), flush=True); input()"
    drafts = []
    with contextlib.ExitStack() as stack:
        for is_killed in (True, False):
            child = subprocess.Popen(
                [sys.executable, "-c", names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.enter_context(child)
            stack.callback(child.kill)
            drafts.append(tmp_path / f".a.json.{child.stdout.readline().strip()}")
            drafts[-1].write_text("half of a te")
            if is_killed:
                child.kill()
                child.wait()
        other = tmp_path / ".a.json.notes"
        other.write_text("of someone else")
        journal.write_atomically(tmp_path / "a.json", "text")
        assert {path.name for path in tmp_path.iterdir()} == {drafts[1].name, other.name, "a.json"}


def test_parts_of_a_run_are_locked_one_by_one(tmp_path):
    run, again = Run(tmp_path), Run.open(tmp_path)
    assert has_locks(tmp_path)
    with run.writing("sft"), again.writing("judge sft"), again.writing():
        with pytest.raises(RunBusyError, match="another process is writing into"), again.writing("sft"):
            pass
        assert has_locks(tmp_path)
    with again.writing("sft"):
        pass
    run.remove_locks()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_an_error_of_the_work_is_no_lock_of_another_process(tmp_path):
    with pytest.raises(BlockingIOError), Run(tmp_path).writing("sft"):
        raise BlockingIOError


def test_the_wall_time_of_overlapping_phases_is_that_of_the_run(tmp_path):
    run = Run(tmp_path)
    run.update(phases={"sft": Phase(20.0, True), "judge": Phase(15.0, True)})
    assert run.manifest.total_seconds == 35
    with run.wall_time():
        time.sleep(0.05)
    first = run.manifest.total_seconds
    assert 0.05 <= first < 15
    with contextlib.suppress(RuntimeError), run.wall_time():
        raise RuntimeError
    assert run.manifest.total_seconds >= first


def test_of_two_that_begin_a_run_at_once_one_does(tmp_path) -> None:
    with Run.reserved(tmp_path / "new" / "run") as run:
        run.configure({"seed": 0})
        with (
            pytest.raises(RunBusyError, match="another process is writing into"),
            Run.reserved(tmp_path / "new" / "run"),
        ):
            pass
        assert run.manifest.configuration == {"seed": 0}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be made: Not a directory"), Run.reserved(tmp_path / "file" / "run"):
        pass
