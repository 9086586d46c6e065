"""Count what the service does, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from real_vs_ai.service.limits import Admission
from real_vs_ai.serving.judge import Answer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Counters:
    """Counters of one running service."""

    def __init__(self, admission: Admission) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "real_vs_ai_requests", "Requests answered.", ["path", "status"], registry=registry
        )
        self._seconds = Histogram(
            "real_vs_ai_request_seconds",
            "Time from a request's first byte to the end of its answer.",
            ["path"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._images = Counter(
            "real_vs_ai_images", "Images, by conclusion.", ["conclusion"], registry=registry
        )
        for name, help, value in (
            ("requests_in_flight", "Requests being answered.", lambda: admission.requests),
            ("held_bytes", "Bytes reserved for them.", lambda: admission.held_bytes),
        ):
            Gauge(f"real_vs_ai_{name}", help, registry=registry).set_function(value)

    def count_request(self, path: str, *, status: int, seconds: float) -> None:
        """Count a request; `path` is one of the service's own, never a client's text."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def count_images(self, answers: Iterable[Answer]) -> None:
        """Count answered images by their conclusions."""
        for answer in answers:
            self._images.labels(answer.conclusion.code.value).inc()

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
