"""Policies that propose patches, and the training of them on rewards from executed tests.

Public: load_policy, ModelPolicy, NoOp, Reference (policies); TrainingReward,
DEFAULT_TRAINING_REWARD (what training pays).
"""

from typing import TYPE_CHECKING

from regrade.datasets.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
    from regrade.policy_training.policies.local_model import ModelPolicy, load_policy
    from regrade.policy_training.policies.scripted import NoOp, Reference

__all__ = ["DEFAULT_TRAINING_REWARD", "ModelPolicy", "NoOp", "Reference", "TrainingReward", "load_policy"]
__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        "environments.training_reward": ["DEFAULT_TRAINING_REWARD", "TrainingReward"],
        "policies.local_model": ["ModelPolicy", "load_policy"],
        "policies.scripted": ["NoOp", "Reference"],
    },
)
