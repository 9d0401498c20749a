"""Executed code is measured in every installed version of Python, also in generators."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from regrade.evaluators.inside.recording import profiling

PROGRAM = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("watched", sys.argv[1])
profiling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(profiling)

def called(): return 1
def resumed():
    yield 1
    yield 2
def thrown_into():
    try:
        yield 1
    except KeyError:
        yield called()
    yield 3
def idle(): yield 1

def waiting(function):
    generator = function()
    next(generator)
    return generator

watch = profiling.make_watch()
generators = {function.__name__: waiting(function) for function in (resumed, thrown_into, idle)}
for turn in range(2):  # as for one test after the other
    watch.start()
    if turn == 0:
        next(generators["resumed"])
        generators["thrown_into"].throw(KeyError())
    unbroken = watch.stop()
    own = {code.co_name for code in watch.codes() if code.co_filename == "<string>"}
    print(unbroken, *sorted(own - {"<module>"}))
"""


def runs(python: str | None) -> bool:
    return python is not None and subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["", "python3.12", "python3.13", "python3.14"])
def test_a_generator_is_measured_however_it_is_resumed(name: str) -> None:
    python = shutil.which(name) if name else sys.executable
    if not runs(python):
        pytest.skip(f"no {name} here")
    lines = subprocess.run(
        [str(python), "-c", PROGRAM, profiling.__file__], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert lines == ["True called resumed thrown_into", "True"]
