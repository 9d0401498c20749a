"""Is a time limit exceeded because the patch is slow, or because the machine is? The base tells, run right now.

Waiting for a core does not count against a limit (see `inside/watching.py`), but a machine can be slow in ways that the
kernel of a virtual machine does not see: the host takes cores away, or pages memory out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from regrade.evaluators.execution.worker import Reply, without_candidate

TreeT = TypeVar("TreeT")
logger = logging.getLogger(__name__)
LEAST_SLACK = 3.0
"""A limit is held against a patch only if it leaves at least this many times what the base takes at the moment."""


def limit_now(limit: float, honest: Iterable[TreeT], run: Callable[[TreeT], Reply]) -> float:
    """The limit of a patch that exceeded `limit`, on this machine as it is now, in seconds; never less than `limit`.

    Args:
        honest: the base, and the tree with the reference if there is one: the bug may be what never ends.
        run: runs the same tests on a tree, within `limit`.

    Raises:
        SandboxError, OSError, WorkerDiedError: see `Worker.run`.
    """
    trees = list(honest)
    for tree in trees:
        with without_candidate():
            reply = run(tree)
        if reply.stopped != "timeout":
            now = max(limit, LEAST_SLACK * (reply.seconds - sum(reply.hanging.values())))
            break
    else:  # the base alone may never end, on the fastest machine
        now = limit if len(trees) < 2 else LEAST_SLACK * limit
    if now > limit:
        logger.info("this machine is slow at the moment: the patch gets %.1f s, not %.1f s", now, limit)
    return now
