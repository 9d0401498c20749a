"""Variants that cannot be compared are refused, and jobs come after those that they need."""

from __future__ import annotations

import pytest

from regrade.datasets.errors import UserError
from regrade.policy_training.trainers.settings import ExpertIterationSettings, OnlineSettings, SFTSettings
from regrade.policy_training.variants.settings import Variant, VariantJob, jobs_of, named, needs_of

GRPO = Variant(name="grpo", label="GRPO", settings=OnlineSettings(algorithm="grpo"))
START = Variant(name="start", label="the start")
MORE = Variant(name="more", label="more SFT", settings=SFTSettings(), start="sft", as_long_as="grpo")


def test_a_variant_brings_the_one_whose_time_it_takes() -> None:
    variants = named([START, MORE, GRPO])
    jobs = jobs_of(variants, ["more"], [0, 1])
    assert jobs == [
        *(VariantJob("", 0), VariantJob("", 1)),
        *(VariantJob("grpo", 0), VariantJob("more", 0), VariantJob("grpo", 1), VariantJob("more", 1)),
    ]
    for place, job in enumerate(jobs):
        assert set(needs_of(job, variants)) <= set(jobs[:place])
    assert jobs_of(variants, list(variants), [0])[1:] == [
        *(VariantJob("start", 0), VariantJob("grpo", 0), VariantJob("more", 0))
    ]


def test_impossible_variants_are_refused() -> None:
    with pytest.raises(UserError, match="expert-iteration is not compared here"):
        Variant(name="rounds", label="", settings=ExpertIterationSettings())
    with pytest.raises(UserError, match="'more': give as_long_as for sft"):
        Variant(name="more", label="", settings=SFTSettings())
    with pytest.raises(UserError, match="two variants are called 'grpo'"):
        named([GRPO, GRPO])
    with pytest.raises(UserError, match="'more' takes as long as 'grpo': there is no such one"):
        named([START, MORE])
