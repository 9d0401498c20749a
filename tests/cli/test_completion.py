"""`regrade --show-completion bash`: bash, with that script, completes commands, options and their values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
source <(regrade --show-completion bash)
complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _regrade_completion regrade; echo "${COMPREPLY[*]}"; }
complete -p regrade
complete_words regrade sco
complete_words regrade compare --fail-on in
"""


def test_bash_completes_commands_and_the_values_of_an_option(tmp_path: Path) -> None:
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",  # this process was not started by a shell of a user
    }
    done = subprocess.run(
        ["bash", "-c", PROGRAM], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    registered, command, value = done.stdout.splitlines()
    assert registered.startswith("complete -o default -F _regrade_completion"), done.stderr
    assert (command, value) == ("score", "inconclusive")
