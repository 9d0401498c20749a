"""The runner of `make contracts`: what it says of an environment that cannot be had, and the page that shows its table.

The contracts themselves install packages, so they run by `make contracts`.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from contracts import packages
from contracts.__main__ import row
from contracts.packages import CONTRACTS, ROOT, Contract, UnavailableError

NOTHING = Contract("nothing", "nothing", (packages.RUNNING,), ())


@pytest.mark.parametrize(
    ("stderr", "reason"),
    [
        (
            "WARNING: Retrying\nERROR: Could not find a version that satisfies the requirement a==9 (from versions: 1, 2)\n"
            "ERROR: No matching distribution found for a==9",
            "it cannot be installed: Could not find a version that satisfies the requirement a==9",
        ),
        (
            "ERROR: Cannot install torch because these package versions have conflicting dependencies.\n"
            "The user requested (constraint) nvidia-cublas<0",
            "it cannot be installed: its packages need CUDA (nvidia-cublas, several GB)",
        ),
        ("", "it cannot be installed: pip said nothing"),
    ],
)
def test_a_failed_installation_is_one_line(stderr: str, reason: str) -> None:
    program = f"import sys; sys.stderr.write({stderr!r}); sys.exit(1)"
    with pytest.raises(UnavailableError) as found:
        packages._run([sys.executable, "-S", "-c", program])
    assert str(found.value) == reason


def test_a_python_that_is_not_found_is_named(tmp_path: Path) -> None:
    result, line = row(replace(NOTHING, pythons=("3.997", "3.998")), tmp_path, tmp_path / "cache")
    assert result == "skipped"
    assert line == "| nothing | | skipped | needs Python 3.997 or 3.998, which is not found | | |"
    assert not (tmp_path / "cache").exists()


def test_the_page_shows_every_contract_at_its_version() -> None:
    page = (ROOT / "docs" / "trainers.md").read_text()
    shown = dict(re.findall(r"^\| ([a-z-]+) ([0-9.]+) \|", page, re.MULTILINE))
    del shown["trl"]  # part of `make test`
    for contract in CONTRACTS:
        pins = dict(pin.split("==") for pin in (*contract.requirements, *contract.without_dependencies) if "==" in pin)
        assert shown.get(contract.package) == pins[contract.package], contract.name
    assert set(shown) == {contract.package for contract in CONTRACTS}
