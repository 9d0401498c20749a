"""Policies that propose patches, and the training of them on rewards from executed tests.

Public: load_policy, ModelPolicy, NoOp, Reference (policies); Shaping, training_reward (what training pays).
"""

from typing import TYPE_CHECKING

from regrade.datasets.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from regrade.policy_training.environments.reward_shaping import Shaping, training_reward
    from regrade.policy_training.policies.local_model import ModelPolicy, load_policy
    from regrade.policy_training.policies.scripted import NoOp, Reference

__all__ = ["ModelPolicy", "NoOp", "Reference", "Shaping", "load_policy", "training_reward"]
__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        "environments.reward_shaping": ["Shaping", "training_reward"],
        "policies.local_model": ["ModelPolicy", "load_policy"],
        "policies.scripted": ["NoOp", "Reference"],
    },
)
