"""Inspect: an evaluation with its mock model, and what its metrics make of the scores."""

import math

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.solver import generate
from shared import BREAK, DAEMON, FIX, LOST, MALFORMED, report, values

from regrade.policy_training.adapters.inspect_ai import regrade_scorer

expected = values()
answers = [FIX, BREAK, MALFORMED, LOST]
outputs = [ModelOutput.from_content("mockllm/model", answer) for answer in answers]
for output in outputs:  # else the package counts tokens with a vocabulary that it downloads
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
samples = [Sample(input="Mend second().", target="", id=f"{n}", metadata={"task_id": "second"}) for n in range(4)]
task = Task(dataset=samples, solver=generate(), scorer=regrade_scorer())
(log,) = eval(
    task, model=get_model("mockllm/model", custom_outputs=outputs), display="none", max_samples=1, max_connections=1,
    log_dir="logs",
)  # fmt: skip
assert log.status == "success", log.error
scores = [next(iter((sample.scores or {}).values())) for sample in log.samples or []]
assert [score.value for score in scores[:3]] == [expected["fix"], expected["break"], expected["malformed"]]
assert scores[0].metadata["components"]["resolved"] == 1.0
assert scores[2].reason == "invalid_response_format"
assert math.isnan(scores[3].value)
assert DAEMON in scores[3].explanation
(result,) = log.results.scores
assert (result.scored_samples, result.unscored_samples) == (3, 1)
mean = result.metrics["mean"].value
assert abs(mean - sum(expected.values()) / 3) < 1e-9, mean
report(
    "inspect-ai",
    "an evaluation of four samples with the package's mock model, its log and its metrics",
    "counted as an unscored sample; the mean is that of the three others",
)
