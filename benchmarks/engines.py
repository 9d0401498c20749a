"""How fast is a step of GRPO with Regrade's engine, beside TRL's own generation and passes? And how long does it wait?

    python benchmarks/engines.py                                                 # some ten minutes on two cores
    python benchmarks/engines.py --model runs/variants/starts/s0/checkpoints/expert-iteration
    python benchmarks/engines.py --engines shared --agent runs/agent/checkpoints/sft   # the waiting share of an agent
    python benchmarks/engines.py --quick                                         # one small step each

The same model, tasks, seed, attempts and reward; one setting differs: `generation`. The first step is not counted, as
it starts what later steps find warm; the sandboxes' workers have started before. Each engine begins with an empty
evidence store, so no attempt is known. *Tokens* are those of the prompt and the answer of every attempt, as TRL counts
them, whether or not an engine computes them anew for each. *Waits*: the share of the time in which tests ran and the
model did nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from _latest import record
from agents import warm_scorer

from regrade.datasets.caches import default_cache
from regrade.datasets.sources import load_tasks
from regrade.datasets.tasks import Task
from regrade.evaluators.storage.run import Run
from regrade.policy_training.environments.agent_policy import AgentFormat
from regrade.policy_training.policies.models import EMBEDDED, load_model
from regrade.policy_training.policies.single_turn_prompt import prompt_of
from regrade.policy_training.recipe.settings import Recipe
from regrade.policy_training.recipe.tasks import showing_a_file, spread
from regrade.policy_training.train import train
from regrade.policy_training.trainers.callbacks import Budget
from regrade.policy_training.trainers.settings import OnlineSettings
from regrade.policy_training.training_plan import TrainingPlan
from regrade.reports.number_format import number, percent
from regrade.reports.variant_tables import markdown_table

ENGINES = ("shared", "trl")


def main() -> None:
    options = _options()
    steps, prompts, samples = (1, 2, 4) if options.quick else (options.steps, options.prompts, options.samples)
    model = options.agent or options.model
    agent = AgentFormat.of_checkpoint(Path(options.agent)) if options.agent else None
    tasks = short_tasks(model, prompts * (steps + 1))
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="regrade-bench-") as name:
        folder, built = Path(name), default_cache() / "environments"
        if built.is_dir():
            (folder / "environments").symlink_to(built)
        for engine in options.engines:
            settings = OnlineSettings(
                algorithm="grpo", prompts_per_step=prompts, samples_per_prompt=samples, generation=engine, frozen=0.5
            )
            plan = TrainingPlan(settings=settings, model=model, budget=Budget(steps + 1), agent=agent)
            with warm_scorer(tasks, folder, engine) as scorer:
                print(f"... {engine}", flush=True)
                train(plan, tasks, scorer, folder / f"run-{engine}")
            logged = Run.open(folder / f"run-{engine}").training()["grpo"]
            figures |= {f"{engine}_{key}": value for key, value in figures_of(logged).items()}
    print(told(figures, options.engines))
    if set(ENGINES) <= set(options.engines):
        ratio = figures["shared_tokens_per_second"] / figures["trl_tokens_per_second"]
        figures["shared_by_trl"] = round(ratio, 2)
        print(f"\n{prompts} tasks x {samples} attempts a step: {ratio:.1f} times the tokens a second of plain TRL")
    if not options.quick:
        record("engines", figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--agent", help="a checkpoint of an agent, whose episodes are learned from")
    parser.add_argument("--steps", type=int, default=3, help="counted, after one that is not (default 3)")
    parser.add_argument("--prompts", type=int, default=4, help="tasks per step (default 4)")
    parser.add_argument("--samples", type=int, default=8, help="attempts per task (default 8)")
    parser.add_argument("--quick", action="store_true", help="one small step each")
    return parser.parse_args()


def short_tasks(model: str, count: int) -> list[Task]:
    """Ready-made tasks with prompts as the recipe has them."""
    encode, longest = load_model(model).encode, Recipe().max_prompt_tokens
    tasks = load_tasks(split="tests_only")
    short = [task for task in tasks if len(encode(prompt_of(task).text)) <= longest]
    return [showing_a_file(task) for task in spread(short, count)]


def figures_of(logged: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Of the steps after the first one: seconds a step, tokens a second, and the parts of the time."""
    first, *others = logged
    seconds = sum(float(step["step_time"]) for step in others)
    tokens = float(others[-1]["num_tokens"]) - float(first["num_tokens"])

    def share(*keys: str) -> float:
        return sum(float(step.get(key) or 0.0) for step in others for key in keys) / seconds

    figures = {
        "seconds_a_step": seconds / len(others),
        "tokens_per_second": tokens / seconds,
        "answer_tokens": fmean(float(step["completions/mean_length"]) for step in others),
        "waits": share("execution_seconds", "waiting_seconds"),
    }
    if "generation_seconds" in others[0]:  # TRL's own generation is not timed apart
        figures["generates"] = share("generation_seconds") - share("waiting_seconds")
        figures["learns"] = 1 - share("generation_seconds", "execution_seconds")
    return {key: round(value, 4) for key, value in figures.items()}


def told(figures: Mapping[str, float], engines: Sequence[str]) -> str:
    def of(engine: str, key: str, digits: int) -> str:
        return number(figures[f"{engine}_{key}"], digits)

    rows = [
        [
            f"`{engine}`",
            of(engine, "seconds_a_step", 1),
            of(engine, "tokens_per_second", 0),
            of(engine, "answer_tokens", 1),
            *(percent(figures.get(f"{engine}_{key}"), 0) for key in ("generates", "learns", "waits")),
        ]
        for engine in engines
    ]
    head = ["`generation`", "seconds a step", "tokens a second", "tokens of an answer", "generates", "learns", "waits"]
    return markdown_table(head, rows)


if __name__ == "__main__":
    main()
