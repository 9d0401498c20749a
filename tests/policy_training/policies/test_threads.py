"""Threads of torch on a CPU that others use too: counted, lowered, raised again, and what the user chose."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from regrade.policy_training.policies import threads
from regrade.policy_training.policies.models import LanguageModel
from regrade.policy_training.policies.threads import (
    CoreTimes,
    FreeCores,
    OwnTicks,
    most_threads,
    restored_threads,
    wait_passively,
)
from regrade.policy_training.policies.transcripts import Transcript
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import SFTSettings
from regrade.policy_training.trainers.sft import train_sft

CORE = "cpu{} {user} {nice} 5 {idle} 10 0 0 {steal} 0 0\n"


def system(folder: Path, cores: str, own: int, child: int = 0) -> Path:
    """The files of /proc that are read; `own`, `child`: ticks of this process, and of one that it has started."""
    (folder / "stat").write_text("cpu  1 1 1 1 1 1 1 1 0 0\n" + cores + "intr 12\nctxt 7\n")
    for pid, ticks, children in ((os.getpid(), own, "77 "), (77, child, "78 ")):  # 78 has ended meanwhile
        (folder / str(pid) / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
        (folder / str(pid) / "task" / str(pid) / "children").write_text(children)
        (folder / str(pid) / "stat").write_text(f"{pid} (a ) b) S 1 1 1 0 -1 4 0 0 0 0 {ticks} 0 0 0 20 0 1 0 0 0 0\n")
    return folder


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2})
    monkeypatch.setattr(os, "nice", lambda _by: 0)


@pytest.mark.usefixtures("two_cores")
def test_cores_that_others_use_are_not_available(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def after(number: int, first: dict[str, int], second: dict[str, int], own: int = 0, child: int = 0) -> CoreTimes:
        zero = {"user": 0, "nice": 0, "idle": 0, "steal": 0}
        cores = CORE.format(0, **zero | first) + CORE.format(1, user=900 * number, nice=0, idle=0, steal=0)
        times = CoreTimes.now(OwnTicks(), system(tmp_path, cores + CORE.format(2, **zero | second), own, child))
        assert times is not None
        return times

    before = after(0, {}, {})
    assert before.cores == 2  # core 1 is not for this process
    assert after(1, {"user": 100}, {"idle": 100}).available_since(before) == 1.0
    assert after(1, {"user": 100}, {"steal": 50, "idle": 50}).available_since(before) == 0.5
    assert after(1, {"user": 100}, {"user": 100}, own=70, child=30).available_since(before) == 1.0
    assert after(1, {"nice": 100}, {"idle": 100}).available_since(before) == 2.0
    assert after(1, {"user": 100}, {"user": 100}, own=999).available_since(before) == 2.0
    monkeypatch.setattr(os, "nice", lambda _by: 10)  # this process yields to others itself
    assert after(1, {"nice": 100}, {"idle": 100}).available_since(after(0, {}, {})) == 1.0


def test_ticks_of_a_sandbox_that_has_ended_stay_counted(tmp_path: Path) -> None:
    """Nobody waits for the processes in the namespace of a sandbox: the kernel forgets their ticks."""
    own = OwnTicks()

    def total(mine: int, children: dict[int, int], waited: int = 0) -> int:
        tree = {os.getpid(): (mine, waited, children), **{pid: (ticks, 0, {}) for pid, ticks in children.items()}}
        for pid, (ticks, inherited, below) in tree.items():
            (tmp_path / str(pid) / "task" / "1").mkdir(parents=True, exist_ok=True)
            (tmp_path / str(pid) / "task" / "1" / "children").write_text(" ".join(map(str, below)))
            words = f"S 1 1 1 0 -1 4 0 0 0 0 {ticks} 0 {inherited} 0 20 0 1 0 {pid} 0 0"
            (tmp_path / str(pid) / "stat").write_text(f"{pid} (bwrap) {words}\n")
        own.measure(tmp_path)
        return own.total

    assert total(10, {77: 500}) == 510
    assert total(20, {}) == 520  # 77 has ended, forgotten
    assert total(20, {78: 40}) == 560
    assert total(30, {}, waited=45) == 575  # 78 has ended, waited for: 5 more than were seen
    assert total(30, {77: 3}, waited=45) == 578  # a number that is used again


def test_a_real_sandbox_that_has_ended_stays_counted() -> None:
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        pytest.skip("needs bubblewrap")
    program = "import time\nwhile time.process_time() < 0.4: pass\nprint(flush=True)\ninput()"
    namespace = [bubblewrap, "--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc"]
    own = OwnTicks()
    own.measure()
    before = own.total
    with subprocess.Popen(
        [*namespace, sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as sandbox:
        assert sandbox.stdout is not None
        sandbox.stdout.readline()
        own.measure()
        sandbox.kill()
    own.measure()
    assert own.total - before >= 35  # hundredths of a second


def test_a_system_that_says_nothing_leaves_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(threads.CoreTimes, "now", lambda _own: None)
    cores, before = FreeCores(most=2), torch.get_num_threads()
    cores.follow()
    cores.follow()
    assert (cores.most, torch.get_num_threads()) == (1, before)


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(FreeCores, "has_warned", False)
    with restored_threads():
        torch.set_num_threads(4)
        yield


@pytest.mark.usefixtures("four_threads")
def test_threads_follow_the_cores_and_one_line_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cores = FreeCores()
    assert cores.most == 4
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for available, expected in ((4.0, 4), (3.6, 4), (3.4, 3), (0.2, 1), (1.4, 1), (16.0, 4)):
            cores.use(available, 4)
            FreeCores(most=4).use(available, 4)
            assert torch.get_num_threads() == expected
    (warning,) = seen
    assert str(warning.message).startswith("other processes use 0.6 of 4 cores, so the model computes with 3 of 4")


@pytest.mark.usefixtures("four_threads")
def test_a_step_is_computed_on_the_cores_that_are_free_and_the_threads_come_back(
    language_model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(CoreTimes, "available_since", lambda _now, _earlier: next(available))
    available = iter([1.0, 2.0, 3.0])
    used: list[int] = []
    log = lambda _step, _seconds, _numbers: used.append(torch.get_num_threads())  # noqa: E731
    examples = [Transcript.of_answer("Prompt:\n", f"{k} return x") for k in range(4)]
    with pytest.warns(UserWarning, match="computes with 1 of 4 threads"):
        train_sft(
            language_model, examples, SFTSettings(batch_size=2), out=tmp_path, budget=Budget(steps=3), seed=0, log=log
        )
    assert used == [1, 2, 3]
    assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_that_the_user_chose_is_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "4")
    monkeypatch.setattr(threads.time, "sleep", lambda _seconds: pytest.fail("nothing is measured"))
    assert most_threads() == 1
    FreeCores().follow()
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "1"}])
def test_threads_wait_asleep_unless_the_user_chose(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    wait_passively(environment)
    assert environment == (chosen or {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"})


def test_the_commands_of_models_set_it_before_torch_is_imported() -> None:
    code = (
        "import os, sys; from regrade.cli.main import main; sys.argv = ['regrade', *sys.argv[1:]]\n"
        "try: main()\nfinally: print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)"
    )
    unset = {name: text for name, text in os.environ.items() if name not in ("OMP_WAIT_POLICY", "KMP_BLOCKTIME")}
    said = [
        subprocess.run(
            [sys.executable, "-c", code, command],
            env=unset | {"GLIBC_TUNABLES": ""},
            capture_output=True,
            text=True,
            check=False,
        ).stdout.splitlines()[-1]
        for command in ("train", "compare")
    ]
    assert said == ["PASSIVE False", "None False"]
