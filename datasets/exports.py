"""Tasks written in the formats of other programs (docs/formats.md). `load_tasks` reads what these functions write."""

from regrade.datasets.formats.harbor_export import write_harbor
from regrade.datasets.formats.swe_bench_export import write_swe_bench

__all__ = ["write_harbor", "write_swe_bench"]
