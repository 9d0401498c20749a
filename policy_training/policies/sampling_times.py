"""Where the time of sampling went."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SamplingTimes:
    """Seconds and tokens of sampled dialogues."""

    seconds: float = 0.0
    """Wall time of sampling, without what the consumer of the dialogues did between two of them."""
    waited_seconds: float = 0.0
    """Part of it in which there was nothing to generate, because every open dialogue waited for its reply."""
    reply_seconds: float = 0.0
    """Sum over all replies of the time that each took."""
    replies: int = 0
    action_tokens: int = 0
    """Generated."""
    shown_tokens: int = 0
    """Of replies."""

    @property
    def waited_share(self) -> float:
        return self.waited_seconds / self.seconds if self.seconds else 0.0
