"""Evidence of a user's own: a frozen dataclass with a class method `probe`, which runs in a process for static probes.

    @dataclass(frozen=True)
    class Todos:
        after: int

        @classmethod
        def probe(cls, before: Tree, after: Tree, patch: Patch, task: Task) -> Todos: ...

The type alone names its probe, so that every command and every scorer gathers it.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrade.datasets.errors import UserError
from regrade.datasets.limited_calls import OutOfTimeError, call_within
from regrade.datasets.patches import Patch
from regrade.datasets.tasks import Task, Tree
from regrade.datasets.user_files import run_file
from regrade.evaluators.scoring.probes import EXECUTED, STATIC, StaticProbe, static_evidence
from regrade.evaluators.storage.serialisation import decode_plain, encode
from regrade.rewards.evidence import Prediction

PARAMETERS = "(before, after, patch, task)"
BUILT_IN = frozenset(kind.__qualname__ for kind in (*EXECUTED, *STATIC, Prediction))
"""Evidence is stored by the name of its type."""
PASSED_SECONDS = 600.0
"""Wall time of one call of a probe that the user passed, such as a reward model that is loaded at the first one."""


class ProbeError(UserError):
    """The code of a user's own probe is wrong. It never becomes a score of 0."""


@dataclass(frozen=True)
class OwnProbe:
    """The probe of a user's own evidence type, as another process finds it."""

    kind: str
    module: str
    file: Path
    identity: str
    """SHA-256 of the file and of the files beside it that it imports: a part of the key of stored evidence."""

    def __call__(self, before: Tree, after: Tree, patch: Patch, task: Task) -> str:
        """The evidence as JSON, in a process that may be killed.

        Raises:
            ProbeError: the probe raised, returned something else, or its file has changed.
        """
        try:
            kind = self._type()
            evidence = kind.probe(before, after, patch, task)
            if not isinstance(evidence, kind):
                raise TypeError(f"it returned {repr(evidence)[:80]}, and no {self.kind}")
            text = encode(evidence)
            if decode_plain(kind, text) != evidence:
                raise TypeError(f"its fields are not of their types, or JSON cannot represent them: {evidence!r:.80}")
            return text
        except (ProbeError, MemoryError, RecursionError):
            raise
        except BaseException as error:  # SystemExit must not look like the end of the process
            raise ProbeError(self._described(error, task)) from None

    def _type(self) -> Any:
        if _identity(self.module, self.file) != self.identity:
            raise ProbeError(f"{self.file}, or a file that it imports, has changed meanwhile: run the command again")
        module = sys.modules.get(self.module)
        if getattr(module, "identity_of_probe", None) != self.identity:
            for path in _files(self.module, self.file):
                for name in [name for name, other in sys.modules.items() if _file_of(other) == path]:
                    del sys.modules[name]
            module = _imported(self.module, self.file)
            module.identity_of_probe = self.identity
        return getattr(module, self.kind)

    def _described(self, error: BaseException, task: Task) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == self.file]
        where = f" at {self.file.name}:{lines[-1]}" if lines else f" ({self.file})"
        raised = " ".join(f"{type(error).__name__}: {error}".removesuffix(": ").split())[:300]
        return f"the probe of {self.kind} raised {raised}{where}, for task {task.id!r}: it must accept any patch"


def passed_evidence(probe: StaticProbe, kind: type, before: Tree, after: Tree, patch: Patch, task: Task) -> Any:
    """The evidence of a probe that the user passed to the scorer, which runs in this process.

    Raises:
        ProbeError: it does not end.
    """
    try:
        return call_within(PASSED_SECONDS, lambda: static_evidence(probe, kind, before, after, patch, task))
    except OutOfTimeError as error:
        file = getattr(getattr(probe, "__code__", None), "co_filename", "")
        line = next((frame.f_lineno for frame in error.frames if frame.f_code.co_filename == file), None)
        where = f" (it is at {Path(file).name}:{line})" if line else ""
        raise ProbeError(
            f"the probe of {kind.__qualname__} did not end within {error.seconds:g} s{where}, for task {task.id!r}: it "
            "must end for any patch"
        ) from None


def own_probe(kind: type) -> OwnProbe | None:
    """The probe that the type brings itself; None: it has no `probe`.

    Raises:
        UserError: its probe, its name or its place does not allow to run it in another process.
    """
    probe = getattr(kind, "probe", None)
    if not callable(probe):
        return None
    name = kind.__qualname__
    if name in BUILT_IN:
        raise UserError(f"the evidence type {name!r} has the name of a built-in one: rename it")
    file = _file_of(sys.modules.get(kind.__module__))
    if file is None or kind.__module__ == "__main__" or "." in name:
        raise UserError(
            f"the evidence type {name!r} is not at the top of an imported file, so that no other process can run its "
            f"probe: move it into a module of its own, or pass Scorer(probes={{{kind.__name__}: function}})"
        )
    try:
        inspect.signature(probe).bind(*range(4))
    except (TypeError, ValueError):
        raise UserError(f"{name}.probe must be a @classmethod or @staticmethod with {PARAMETERS} ({file})") from None
    return OwnProbe(name, kind.__module__, file, _identity(kind.__module__, file))


def _imported(name: str, file: Path) -> Any:
    """The module of this name from this file: a reward's file has a name that nobody can import."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    is_importable = spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file
    return importlib.import_module(name) if is_importable else run_file(file, name)


def _identity(module: str, file: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(_files(module, file)):
        whole.update(f"{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _files(module: str, file: Path) -> set[Path]:
    """The file, and the files of its folder that it imports, at whatever place in its code."""
    root = file.parents[min(module.count("."), len(file.parents) - 1)]
    files: set[Path] = set()
    pending = [file]
    while pending:
        path = pending.pop()
        if path not in files:
            files.add(path)
            pending.extend(_imports(path, root))
    return files


def _imports(path: Path, root: Path) -> Iterator[Path]:
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            targets = [root.joinpath(*alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = root if node.level == 0 else path.parents[min(node.level, len(path.parents)) - 1]
            base = start.joinpath(*(node.module or "").split("."))
            targets = [base, *(base / alias.name for alias in node.names)]
        else:
            continue
        for target in targets:
            yield from (found for found in (target.with_suffix(".py"), target / "__init__.py") if found.is_file())


def _file_of(module: object) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) else None
