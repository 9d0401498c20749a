"""Preparation of a suite, once per pristine tree and shared by its candidates: byte code, configuration."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from regrade.datasets.tasks import Limits, TestSuite, Tree
from regrade.evaluators.execution.records import (
    ConfigurationRecord,
    DoneRecord,
    ImportedRecord,
    ImportRecord,
    ThreadsRecord,
)
from regrade.evaluators.execution.worker import UNPREPARED, Preparation, Reply, Request, Worker
from regrade.evaluators.inside.bytecode import COLLECT_ONLY
from regrade.evaluators.sandboxes import Sandbox
from regrade.evaluators.sandboxes.scratch import remove
from regrade.evaluators.storage.digests import key_of, sealed, unsealed

EARLY_HOOKS = frozenset({"pytest_addoption", "pytest_addhooks", "pytest_sessionstart", "pytest_plugin_registered"})
"""Hooks that a conftest.py must define before collection, beside pytest_cmdline_* and pytest_load_*."""
PARTIAL_PREFIX = ".making-"
VERSION = 4
"""Version of the format: preparations of earlier versions are not used."""
WRITABLE = frozenset({"dev", "tmp"})
"""Folders of a sandbox in which tests write files of their own: byte code of those is of no use to others."""
DESCRIPTION = "preparation.json"
"""Name of the file beside the byte code, with the rest of the preparation and a digest of the byte code."""


def prepare_suite(
    sandbox: Sandbox,
    python: Path,
    tree: Tree,
    suite: TestSuite,
    limits: Limits,
    folder: Path,
    scratch: Path,
    digest: str,
) -> Preparation:
    """Collect the tests of the pristine tree once, with byte code written to `folder`, unless it is already there.

    Args:
        digest: of the pristine tree; part of the key of the byte code.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    if suite.runner != "pytest":
        return UNPREPARED
    key = _key(suite, digest)
    is_there = (folder / key).exists()  # asked first: what another process completes from now on is whole
    preparation = _stored(folder / key)
    if preparation is None:
        if is_there:
            remove(folder / key)  # of an earlier version, or damaged
        _fill(sandbox, python, Tree(tree.root), suite, limits, folder, scratch, key)
        preparation = _stored(folder / key)
    if preparation is None:
        raise OSError(f"the preparation written to {folder / key} can't be read back")
    return preparation


def store_preparation(
    tree: Tree, suite: TestSuite, bytecode: Path, reply: Reply, modules: tuple[str, ...], folder: Path
) -> None:
    """Store what a run of the tests on the pristine tree wrote, so that nothing need be collected for candidates.

    Args:
        suite: as the candidates run it.
        bytecode: the folder that the run wrote its byte code to; it is copied.
        reply: of the run, which has ended by itself.
        modules: see `early_modules`.
        folder: see `bytecode_folder`.

    Raises:
        OSError: such as a full disk; nothing is stored then.
    """
    key = _key(suite, tree.digest)
    if (folder / key).exists():
        return
    partial = folder / f"{PARTIAL_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        (partial / key).mkdir(parents=True)
        for written in bytecode.iterdir():
            if written.name not in WRITABLE:
                shutil.copytree(written, partial / key / written.name, symlinks=True)
        _publish(partial, folder, key, tree, reply, modules)
    finally:
        remove(partial)


def bytecode_folder(cache: Path, python: Path | str, identity: str) -> Path:
    """The folder of the preparations of an environment, created if missing."""
    folder = cache / "bytecode" / key_of([str(python), identity]).hex()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(suite: TestSuite, digest: str) -> str:
    return hashlib.sha256(f"{VERSION}{digest}{suite!r}".encode()).hexdigest()[:24]


def _stored(folder: Path) -> Preparation | None:
    """The stored preparation; None: it is missing, incomplete or changed."""
    try:
        fields = json.loads(unsealed((folder / DESCRIPTION).read_text("utf-8")))
        if fields.pop("files") != _digest_of_files(folder):
            return None
        return Preparation(**{**fields, "modules": tuple(fields["modules"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _digest_of_files(folder: Path) -> str:
    """SHA-256 over the paths and contents of all byte code, which every candidate reads anyway."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.pyc")):
        content = path.read_bytes()
        whole.update(f"{path.relative_to(folder)}\0{len(content)}\0".encode("utf-8", "surrogateescape") + content)
    return whole.hexdigest()


def _fill(
    sandbox: Sandbox, python: Path, tree: Tree, suite: TestSuite, limits: Limits, folder: Path, scratch: Path, key: str
) -> None:
    partial = folder / f"{PARTIAL_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    (partial / key).mkdir(parents=True)
    for path in (partial, partial / key):
        path.chmod(0o777)
    workplace = scratch / f"preparation-{secrets.token_hex(4)}"
    workplace.mkdir()
    try:
        with Worker(sandbox, python, workplace, partial, writable_bytecode=True, limits=limits) as worker:
            reply = worker.run(tree, Request(suite=suite, limits=limits, options=(COLLECT_ONLY,)), Preparation(key))
            modules = early_modules(worker, tree, suite, limits, reply)
        if not reply.of(DoneRecord):  # so damaged byte code was not removed
            _empty(partial / key)
        _publish(partial, folder, key, tree, reply, modules)
    finally:
        remove(partial)
        remove(workplace)


def _publish(partial: Path, folder: Path, key: str, tree: Tree, reply: Reply, modules: tuple[str, ...]) -> None:
    """Complete the preparation with the byte code in `partial / key`, and move it to its place."""
    chosen = [record.path for record in reply.of(ConfigurationRecord)]
    session = key if chosen and are_conftests_late(tree) else ""
    preparation = Preparation(key, session, chosen[0] if session else "", modules)
    content = json.dumps({**asdict(preparation), "files": _digest_of_files(partial / key)})
    (partial / key / DESCRIPTION).write_text(sealed(content), "utf-8")
    (partial / key).chmod(0o755)
    try:
        (partial / key).rename(folder / key)
    except OSError:
        if not (folder / key).exists():  # unless another process was faster
            raise


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        remove(path)


def early_modules(worker: Worker, tree: Tree, suite: TestSuite, limits: Limits, reply: Reply) -> tuple[str, ...]:
    """Modules from outside the tree that the tests import; fewer if importing them starts threads, unsafe for forks.

    Args:
        reply: of a run on the tree that reports what the collection imported (see `ImportedRecord`).

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    imported = reply.of(ImportedRecord)
    modules = tuple(imported[0].names) if imported else ()
    standard = tuple(name for name in modules if name.partition(".")[0] in sys.stdlib_module_names)
    for chosen in (modules, standard):
        trial = worker.run(tree, Request(suite=suite, limits=limits, kind="imports", modules=chosen))
        if ThreadsRecord(1) in trial.records:
            failing = {record.module for record in trial.of(ImportRecord)}
            return tuple(name for name in chosen if name not in failing)
    return ()


def are_conftests_late(tree: Tree) -> bool:
    """May every conftest.py of the tree be imported as late as the collection of the tests beside it?"""
    for path in tree.paths():
        if path.rpartition("/")[2] == "conftest.py":
            text = tree.read(path)
            hooks = set(re.findall(r"^\s*def (pytest_\w+)", text, re.MULTILINE))
            early = {
                hook for hook in hooks if hook in EARLY_HOOKS or hook.startswith(("pytest_cmdline_", "pytest_load_"))
            }
            if early or "pytest_plugins" in text:
                return False
    return True
