"""Count what the service does, for Prometheus, and let a client that is refused read why."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from real_vs_ai.service.limits import Admission
from real_vs_ai.serving.judge import Answer

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_DISCARD_SECONDS = 10.0
_FIRST_REFUSAL = 400
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


class RequestWatch:
    """An ASGI middleware that counts requests, and reads what a refused client still sends."""

    def __init__(self, application: ASGIApp, counters: Counters, admission: Admission) -> None:
        self._application, self._counters, self._admission = application, counters, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        body = _Body(receive)
        status = 500

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                # A client that asks before it sends its body sends none after a refusal.
                waits = Headers(scope=scope).get("expect", "").lower() == "100-continue"
                if status >= _FIRST_REFUSAL and not waits:
                    # A connection that is closed before the client has sent everything loses the
                    # answer: the client sees it break off.
                    with contextlib.suppress(TimeoutError):
                        async with self._admission.time_limit(_DISCARD_SECONDS):
                            await body.discard_rest()
            await send(message)

        try:
            await self._application(scope, body.receive, watched_send)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._counters.count_request(path, status=status, seconds=seconds)


class _Body:
    """A request's body as it comes."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._ended = True
        return message

    async def discard_rest(self) -> None:
        """Read what the client still sends."""
        while not self._ended:
            await self.receive()
