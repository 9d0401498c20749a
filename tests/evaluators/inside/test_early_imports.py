"""The worker imports modules for all candidates, but no plugin of pytest: pytest warns about it, maybe by an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from regrade.evaluators.inside import candidates
candidates.import_early(["plain", "measuring", "measuring.parts", "using"])
print(*sorted({"plain", "measuring", "measuring.parts", "measuring.plugin", "using"} & sys.modules.keys()))
import pytest
sys.exit(pytest.main(["-q", "-p", "measuring.plugin", "-c", "pytest.ini", "."]))
"""


def test_a_package_that_imports_its_own_plugin_is_left_to_the_candidates(tmp_path: Path) -> None:
    files = {
        "site/measuring/__init__.py": "from .plugin import LIMIT\n",
        "site/measuring/plugin.py": "LIMIT = 1\n\ndef pytest_configure(config):\n    config.limit = LIMIT\n",
        "site/measuring/parts.py": "",
        "site/measuring-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: measuring\nVersion: 1\n",
        "site/measuring-1.dist-info/entry_points.txt": "[pytest11]\nmeasuring = measuring.plugin\n",
        "site/plain.py": "",
        "site/using.py": "try:\n    import measuring\nexcept Exception:\n    measuring = None\n",
        "tests/pytest.ini": "[pytest]\nfilterwarnings = error\n",
        "tests/test_limit.py": "import using\n\ndef test_limit(pytestconfig):\n"
        "    assert pytestconfig.limit == using.measuring.LIMIT == 1\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path / "tests",
        env={"PYTHONPATH": str(tmp_path / "site"), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "plain"
