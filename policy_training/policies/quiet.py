"""Silence the progress bars and deprecation warnings of other libraries; Regrade has its own progress display."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bars of transformers and datasets, no FutureWarnings of theirs; as a `with` block or a decorator."""
    import datasets
    from transformers.utils import logging

    bars = (
        (logging.is_progress_bar_enabled(), logging.disable_progress_bar, logging.enable_progress_bar),
        (datasets.is_progress_bar_enabled(), datasets.disable_progress_bars, datasets.enable_progress_bars),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for _, disable, _ in bars:
            disable()
        try:
            yield
        finally:
            for was_on, _, enable in bars:
                if was_on:
                    enable()
