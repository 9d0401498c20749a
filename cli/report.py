"""`regrade report`: a run as one HTML file that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write a run's report.html and summary.json anew."""
    from regrade.reports.html_report import write_report

    typer.echo(write_report(run))
