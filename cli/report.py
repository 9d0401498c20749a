"""`regrade report`: write the report of a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write report.html and summary.json of a run."""
    from regrade.reports.html_report import write_report

    typer.echo(write_report(run))
