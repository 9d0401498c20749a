"""The loader of local and scripted policies by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from regrade.datasets.rollouts import Policy
from regrade.datasets.tasks import Task
from regrade.evaluators.scoring.scorer import Scorer
from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
from regrade.policy_training.policies.local_model import ModelPolicy
from regrade.policy_training.policies.models import load_model
from regrade.policy_training.policies.scripted import FURTHER, NO_OP, REFERENCE, FurtherPatches, NoOp, Reference
from regrade.policy_training.policies.unbound import UnboundAgent


def load_policy(
    name: str,
    tasks: Sequence[Task] = (),
    *,
    device: str | None = None,
    format: AgentFormat | None = None,
    scorer: Scorer | None = None,
) -> Policy:
    """`no-op`; `reference` and the rules of `FURTHER` (of the given tasks); `smollm2-135m`, a checkpoint's folder, or a
    model on the hub.

    A checkpoint that was trained as an agent works as it was trained, in as many turns.

    Args:
        format: how a model works as an agent; None: as the checkpoint was trained.
        scorer: runs an agent's tests. None: that of the evaluation which the policy enters.

    Raises:
        UserError: no such model.
    """
    if name in NO_OP:
        return NoOp()
    if name == REFERENCE:
        return Reference.of(tasks)
    if name in FURTHER:
        return FurtherPatches.of(tasks, name)
    how = AgentFormat.of_checkpoint(Path(name)) if format is None else format
    language_model, own_name = load_model(name, device=device), Path(name).name or name
    if how.limits.turns == 1:
        return ModelPolicy(language_model, own_name)
    agent = UnboundAgent(own_name, lambda runs_tests: AgentPolicy(language_model, runs_tests, own_name, how))
    return agent if scorer is None else agent.with_scorer(scorer)
