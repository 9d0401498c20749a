"""The metrics of a server, in Prometheus' format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from regrade.evaluators.scoring.stats import Stats
from regrade.policy_training.serving.job_queue import QueueCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
HELP_OF_COUNTS = {
    "started": "Answers that were scored.",
    "joined": "Requests that joined an equal answer that waited or ran.",
    "remembered": "Requests answered by a verdict in memory.",
    "refused": "Answers for which the queue had no room.",
    "dropped": "Answers that no client waited for any more.",
}
HELP_OF_STATS = {
    "executions": "Executions of candidates.",
    "hits": "Answers whose evidence was stored.",
    "cpu_seconds": "CPU time of the candidates, in seconds.",
    "retries": "Attempts that failed because of the infrastructure.",
    "damaged": "Stored records that were damaged, and were gathered again.",
}


class ServerMetrics:
    """The metrics of one server; each server has a registry of its own."""

    def __init__(self, counts: Callable[[], QueueCounts], stats: Callable[[], Stats]) -> None:
        """
        Args:
            counts: those of the queue, now.
            stats: those of the scorer, now.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_CounterCollector(counts, stats))
        self.requests = Counter("regrade_requests", "Requests.", ("path", "status"), registry=self._registry)
        self.request_seconds = Histogram(
            "regrade_request_seconds", "Time of a request.", ("path",), buckets=SECONDS, registry=self._registry
        )
        self.verdicts = Counter("regrade_verdicts", "Verdicts by their kind.", ("kind",), registry=self._registry)
        self.job_seconds = Histogram(
            "regrade_job_seconds", "Time in which an answer was scored.", buckets=SECONDS, registry=self._registry
        )
        for kind in ("scored", "unscored"):
            self.verdicts.labels(kind)

    def text(self) -> bytes:
        """All metrics in the text format."""
        return generate_latest(self._registry)


class _CounterCollector(Collector):
    """Reads the counters of the queue and of the scorer when they are asked for."""

    def __init__(self, counts: Callable[[], QueueCounts], stats: Callable[[], Stats]) -> None:
        self._counts = counts
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily("regrade_jobs_waiting", "Answers that wait.", value=counts.waiting)
        yield GaugeMetricFamily("regrade_jobs_running", "Answers that run.", value=counts.running)
        for name, text in HELP_OF_COUNTS.items():
            yield CounterMetricFamily(f"regrade_jobs_{name}", text, value=getattr(counts, name))
        stats = asdict(self._stats())
        for name, text in HELP_OF_STATS.items():
            yield CounterMetricFamily(f"regrade_scorer_{name}", text, value=stats[name])
