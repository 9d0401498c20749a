"""Weights that cannot be written: one line with the place, the reason and the remedy, whichever library notices it."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regrade.datasets.errors import UserError

OF_TORCH = ("PytorchStreamWriter", "inline_container")
"""In the messages of `torch.save` when it cannot write: it raises RuntimeError, without a reason."""
OF_TOKENIZERS = re.compile(r"\(os error (\d+)\)$")
"""At the end of messages of `tokenizers`, which raises a bare Exception."""
LITTLE = 1 << 20
"""Bytes free on a disk that such an error is then blamed on."""


@contextmanager
def writing(what: str, path: Path, kept: str) -> Iterator[None]:
    """Raises UserError instead of OSError if `path` cannot be written.

    Args:
        what: is written, for the message.
        kept: is there all the same, for the message.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: {what} cannot be written: {error.strerror or error}; {kept}. Free space there, or make it "
            "writable, and run the same again: it goes on"
        ) from error


@contextmanager
def os_errors(folder: Path) -> Iterator[None]:
    """Raises OSError in place of errors of torch, safetensors and tokenizers if files in `folder` cannot be written.

    To be used while the files are there: of torch's error the free space alone tells the reason.
    """
    try:
        yield
    except Exception as error:
        if type(error) is Exception and (match := OF_TOKENIZERS.search(str(error))):
            raise OSError(int(match[1]), os.strerror(int(match[1])), str(folder)) from error
        is_of_torch = isinstance(error, RuntimeError) and any(part in str(error) for part in OF_TORCH)
        if not is_of_torch and type(error).__name__ != "SafetensorError":
            raise
        is_full = os.strerror(errno.ENOSPC) in str(error) or shutil.disk_usage(folder).free < LITTLE
        number = errno.ENOSPC if is_full else errno.EIO
        raise OSError(number, os.strerror(number), str(folder)) from error
