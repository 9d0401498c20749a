"""`regrade report`: write the report of a run as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]) -> None:
    """Write report.html and summary.json of a run; of a study report.html, report.md and study.json."""
    from regrade.reports.html_report import write_report
    from regrade.reports.study_page import write_study_report
    from regrade.reports.study_results import is_study

    typer.echo(write_study_report(run) if is_study(run) else write_report(run))
