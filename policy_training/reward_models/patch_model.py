"""The contract of reward models: patches in, for each the chance of each component out. No execution, no torch.

`quality` tests any of them on executed attempts, and a composition of rewards reads them as `Prediction`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from regrade.evaluators.storage.labelled_attempts import Component, ProposedPatch
from regrade.policy_training.reward_models.calibration import Chance

Chances = Mapping[Component, Chance]
"""Component -> its calibrated probability with its doubt; a component for which the model has no head is missing."""


class PatchModel(Protocol):
    """A reward model."""

    @property
    def name(self) -> str: ...

    def chances(self, patches: Sequence[ProposedPatch]) -> list[Chances]:
        """One entry per patch, in their order; empty for a patch that the model cannot read.

        It must not read executed evidence or labels, which a tested attempt has too.
        """
        ...
