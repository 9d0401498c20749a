"""What a worker starts in: a sandbox with an interpreter, or a task's own image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from regrade.datasets.container_images import ContainerImage
from regrade.datasets.tasks import Limits
from regrade.evaluators.execution.activity import Listener
from regrade.evaluators.execution.container_worker import ContainerWorker
from regrade.evaluators.execution.image_environments import ImageFacts
from regrade.evaluators.execution.worker import Worker
from regrade.evaluators.sandboxes import Mount, Sandbox


@dataclass(frozen=True)
class WorkerEnvironment:
    """The environment of a task's tests on this machine."""

    sandbox: Sandbox
    python: Path
    """The interpreter, as the sandbox names it."""
    bytecode: Path | None = None
    """See `Worker`."""
    packages: Path | None = None
    tools: Path | None = None
    image: ContainerImage | None = None
    facts: ImageFacts | None = None

    def worker(
        self,
        scratch: Path,
        *,
        limits: Limits,
        channel: Mount | None = None,
        listener: Listener | None = None,
        writable_bytecode: bool = False,
    ) -> Worker:
        """A new worker: a cold one if the image can't have a warm one. See `Worker` for the arguments."""
        if self.image is not None and self.facts is not None and not self.facts.is_warm(self.image):
            return ContainerWorker(
                self.image, self.facts, scratch, limits=limits, packages=self.packages, listener=listener
            )
        return Worker(
            self.sandbox,
            self.python,
            scratch,
            self.bytecode,
            writable_bytecode=writable_bytecode,
            limits=limits,
            packages=self.packages,
            tools=self.tools,
            channel=channel,
            listener=listener,
        )


def image_environment(
    image: ContainerImage, facts: ImageFacts, *, packages: Path | None, bytecode: Path | None = None
) -> WorkerEnvironment:
    """The environment of an image."""
    sandbox, python = facts.sandbox(image), Path(facts.python)
    return WorkerEnvironment(sandbox, python, bytecode=bytecode, packages=packages, image=image, facts=facts)
