"""What is counted, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from langchain_safeguard.caching.verdict_cache import VerdictCache
from langchain_safeguard.decision import Decision
from langchain_safeguard.guards import Guard, ModelGuard

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one server, in a registry of their own."""

    def __init__(self) -> None:
        """Start at zero."""
        registry = self._registry = CollectorRegistry()
        self._requests = Counter(
            "safeguard_requests",
            "Requests answered.",
            ("endpoint", "method", "status"),
            registry=registry,
        )
        self._request_seconds = Histogram(
            "safeguard_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ("endpoint",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._decisions = Counter(
            "safeguard_decisions", "Decisions made.", ("side", "action"), registry=registry
        )
        self._categories = Counter(
            "safeguard_decision_categories",
            "Categories that fired in decisions, by what became of the text.",
            ("category", "action"),
            registry=registry,
        )
        self._failures = Counter(
            "safeguard_guard_failures", "Verdicts that a guard owed.", ("guard",), registry=registry
        )
        self._guard_seconds = Histogram(
            "safeguard_guard_seconds",
            "Time a guard took for a verdict, waiting for its batch included.",
            ("guard",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._running = Gauge(
            "safeguard_requests_running", "Requests being checked.", registry=registry
        )
        self._shed = Counter(
            "safeguard_requests_shed",
            "Requests turned away because the server was busy.",
            registry=registry,
        )
        self._gone = Counter(
            "safeguard_requests_abandoned",
            "Requests given up because their client went away.",
            registry=registry,
        )
        self._reloads = Counter(
            "safeguard_policy_reloads", "Policies read again.", ("result",), registry=registry
        )
        self._ready = Gauge("safeguard_ready", "Whether the guards are loaded.", registry=registry)

    def request(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(endpoint, method, status).inc()
        self._request_seconds.labels(endpoint).observe(seconds)

    def decision(self, decision: Decision) -> None:
        """Count a decision and its verdicts."""
        action = decision.action.value
        self._decisions.labels(decision.side, action).inc()
        for category in decision.categories:
            self._categories.labels(category, action).inc()
        for verdict in decision.verdicts:
            if verdict.failed:
                self._failures.labels(verdict.guard).inc()
            if verdict.latency_ms is not None:
                self._guard_seconds.labels(verdict.guard).observe(verdict.latency_ms / 1000)

    def running(self, number: int) -> None:
        """Note how many requests are being checked."""
        self._running.set(number)

    def shed(self) -> None:
        """Count a request that was turned away."""
        self._shed.inc()

    def abandoned(self) -> None:
        """Count a request whose client went away."""
        self._gone.inc()

    def reload(self, *, worked: bool) -> None:
        """Count a policy reload."""
        self._reloads.labels("ok" if worked else "refused").inc()

    def ready(self, guards: Sequence[Guard], cache: VerdictCache) -> None:
        """Note that the guards are loaded, and read what they count from now on."""
        self._registry.register(_Queues(guards))
        self._registry.register(_Remembered(cache))
        self._ready.set(1)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self._registry)


class _Remembered(Collector):
    """Reads what the cache of verdicts counts."""

    def __init__(self, cache: VerdictCache) -> None:
        self._cache = cache

    def collect(self) -> Iterable[Metric]:
        for name, said in (("hits", "were known"), ("misses", "were not known")):
            yield CounterMetricFamily(
                f"safeguard_verdict_cache_{name}",
                f"Verdicts that {said}.",
                value=self._cache.stats[name],
            )


class _Queues(Collector):
    """Reads what engines count themselves, when somebody asks."""

    def __init__(self, guards: Sequence[Guard]) -> None:
        self._guards = [guard for guard in guards if isinstance(guard, ModelGuard)]

    def collect(self) -> Iterable[Metric]:
        batches = HistogramMetricFamily(
            "safeguard_guard_batch_size",
            "Questions per batch of a guard's engine.",
            labels=("guard",),
        )
        asked = CounterMetricFamily(
            "safeguard_guard_tokens",
            "Tokens of the prompts that a language model was asked.",
            labels=("guard",),
        )
        # Two counters that only grow; the rest of the first is what came from the cache.
        computed = CounterMetricFamily(
            "safeguard_guard_computed_tokens",
            "Tokens that it had to compute for that: the others it had read before.",
            labels=("guard",),
        )
        for guard in self._guards:
            stats, label = guard.stats, (guard.name,)
            sizes = guard.batch_sizes
            batches.add_metric(
                label,
                buckets=[
                    *((str(float(most)), sum(sizes[: most + 1])) for most in _BATCHES),
                    ("+Inf", sum(sizes)),
                ],
                sum_value=sum(size * count for size, count in enumerate(sizes)),
            )
            if "tokens" in stats:
                asked.add_metric(label, stats["tokens"])
                computed.add_metric(label, stats["computed_tokens"])
        return (batches, asked, computed)
