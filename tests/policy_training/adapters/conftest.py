"""Makes the contracts' table and task folder importable as `contracts`."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
if str(TESTS) not in sys.path:
    sys.path.append(str(TESTS))
