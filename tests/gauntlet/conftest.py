"""Makes the gauntlet importable as `gauntlet`, and the benchmarks by their own names."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
# At the end, so that nothing of these folders stands in front of anything else.
sys.path.extend(str(path) for path in (HERE.parent, HERE.parents[1] / "benchmarks") if str(path) not in sys.path)
