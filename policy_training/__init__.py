"""Policies that propose patches, and the training of them on rewards from executed tests.

Public: load_policy, ModelPolicy, NoOp, Reference (policies); RepositoryEnvironment, EpisodeLimits,
run_chat_episode, ChatAnswer, endpoint_chat, LocalChat, CompactEpisode, AgentPolicy,
AgentFormat (agents); Verdicts, Answer, Verdict, answer_prompts (the reward of every trainer); environment_factory,
agent_prompts, ExecutedOutcome, PatchReward (TRL); load_reward_model (reward models); TrainingReward,
DEFAULT_TRAINING_REWARD (what training pays); read_recipe, TrainingRecipe, train_recipe (training).
"""

from typing import TYPE_CHECKING

from regrade.datasets.lazy_imports import lazy_imports

if TYPE_CHECKING:
    from regrade.policy_training.adapters.trl import (
        ExecutedOutcome,
        PatchReward,
        agent_prompts,
        environment_factory,
    )
    from regrade.policy_training.adapters.verdicts import Answer, Verdict, Verdicts, answer_prompts
    from regrade.policy_training.environments.agent_policy import AgentFormat, AgentPolicy
    from regrade.policy_training.environments.agent_tools import EpisodeLimits, RepositoryEnvironment
    from regrade.policy_training.environments.chat_loop import ChatAnswer, run_chat_episode
    from regrade.policy_training.environments.chat_models import LocalChat, endpoint_chat
    from regrade.policy_training.environments.compact_episode import CompactEpisode
    from regrade.policy_training.environments.training_reward import DEFAULT_TRAINING_REWARD, TrainingReward
    from regrade.policy_training.loading import load_policy
    from regrade.policy_training.policies.local_model import ModelPolicy
    from regrade.policy_training.policies.scripted import NoOp, Reference
    from regrade.policy_training.recipe_files import TrainingRecipe, read_recipe
    from regrade.policy_training.reward_models.loading import load_reward_model
    from regrade.policy_training.train import train_recipe

__all__ = [
    "DEFAULT_TRAINING_REWARD",
    "AgentFormat",
    "AgentPolicy",
    "Answer",
    "ChatAnswer",
    "CompactEpisode",
    "EpisodeLimits",
    "ExecutedOutcome",
    "LocalChat",
    "ModelPolicy",
    "NoOp",
    "PatchReward",
    "Reference",
    "RepositoryEnvironment",
    "TrainingRecipe",
    "TrainingReward",
    "Verdict",
    "Verdicts",
    "agent_prompts",
    "answer_prompts",
    "endpoint_chat",
    "environment_factory",
    "load_policy",
    "load_reward_model",
    "read_recipe",
    "run_chat_episode",
    "train_recipe",
]
__getattr__, __dir__ = lazy_imports(
    __name__,
    {
        "adapters.trl": ["ExecutedOutcome", "PatchReward", "agent_prompts", "environment_factory"],
        "adapters.verdicts": ["Answer", "Verdict", "Verdicts", "answer_prompts"],
        "environments.agent_policy": ["AgentFormat", "AgentPolicy"],
        "environments.agent_tools": ["EpisodeLimits", "RepositoryEnvironment"],
        "environments.chat_loop": ["ChatAnswer", "run_chat_episode"],
        "environments.chat_models": ["LocalChat", "endpoint_chat"],
        "environments.compact_episode": ["CompactEpisode"],
        "environments.training_reward": ["DEFAULT_TRAINING_REWARD", "TrainingReward"],
        "loading": ["load_policy"],
        "policies.local_model": ["ModelPolicy"],
        "policies.scripted": ["NoOp", "Reference"],
        "recipe_files": ["TrainingRecipe", "read_recipe"],
        "reward_models.loading": ["load_reward_model"],
        "train": ["train_recipe"],
    },
)
