"""A sandbox of your own: whatever a command enters, such as a pod, a container or another machine.

    python examples/own_sandbox.py                                      # a process of this machine, by `env`
    python examples/own_sandbox.py unshare --net --pid --fork --kill-child --mount-proc    # as root: without network
    python examples/own_sandbox.py podman exec -i tests                 # a container that runs, with the folders below
    python examples/own_sandbox.py kubectl exec -i tests --             # a pod, with the folders below as a volume

The command must pass standard input and output on, and end what it started when its own input ends. Its other side must
see three things under the same paths as this machine: the temporary folder (the tree is written there for each patch),
the checkout of regrade, and the interpreter. A volume does, or a shared file system. Where nothing is shared, run the
whole scorer on the other side: RayScorer does so, and so does `regrade serve` with any HTTP client.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
from pathlib import Path

from regrade.datasets.patches import Patch
from regrade.evaluators import Scorer, local_task
from regrade.evaluators.sandboxes import Mount, Program, SandboxError
from regrade.rewards import tests

HERE = Path(__file__).parent


class CommandSandbox:
    """Has the names of `Sandbox`; no base class is needed."""

    isolated = False
    """True only if candidates reach neither files, processes nor network of the machine, and each mount is at its
    `target`: `seen_at` then returns that."""
    alone = False
    """Is the worker the first process of its pid namespace?"""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.name = f"command:{' '.join(command)}"  # a part of the key of stored evidence

    def candidate_users(self) -> range:
        return range(0)

    def problem(self) -> str:
        try:
            done = subprocess.run([*self.command, "echo", "works"], capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the command does not start: {error}"
        return "" if done.stdout == "works\n" else f"the command fails: {done.stderr.strip() or done.stdout!r}"

    def seen_at(self, mount: Mount) -> str:
        return str(mount.source)

    def start(self, program: Program) -> CommandSession:
        environment = [f"{name}={value}" for name, value in program.environment.items()]
        return CommandSession([*self.command, "env", *environment, str(program.python), *program.arguments])


class CommandSession:
    """The worker, at the other end of two pipes. It enforces the limits of `Program.limits` on candidates itself."""

    def __init__(self, command: list[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, bufsize=0
            )
        except OSError as error:
            raise SandboxError(f"{command[0]} did not start: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[self._input.write(view) or 0 :]
        except (OSError, ValueError) as error:
            raise SandboxError(f"the worker has exited: {self.errors or error}") from error

    def receive(self, timeout: float) -> bytes:
        if not select.select([self._output], [], [], timeout)[0]:
            raise TimeoutError
        return self._output.read(1 << 18) or b""

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """At the end of its input the worker ends its candidates and itself; killed is only what still runs then."""
        if self._log.closed:
            return
        self._input.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self._output.close()
        self._log.close()

    @property
    def errors(self) -> str:
        if self._log.closed:
            return ""
        self._log.seek(0)
        return self._log.read().decode("utf-8", "replace").strip()[-2000:]


if __name__ == "__main__":
    sandbox = CommandSandbox(*(sys.argv[1:] or ["env"]))
    if problem := sandbox.problem():
        raise SystemExit(f"error: {problem}")
    task = local_task(HERE / "shop", fail_to_pass=["tests/test_prices.py::test_net"])
    with Scorer(workers=1, sandbox=sandbox) as scorer:
        for name in ("fix", "bold"):
            patch = Patch((HERE / "patches" / f"{name}.diff").read_text("utf-8"))
            (breakdown,) = scorer.score([(task, patch)], tests)
            print(f"{name} in {sandbox.name}: {breakdown.value:.3f}")
