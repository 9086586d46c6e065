"""Read the images of requests into memory, within limits, and count the requests for Prometheus.

A request holds one or many files in the multipart field `files`, or one image as its whole body.
Nothing is written to disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from real_vs_ai.service.access import Admission, Limits, RequestError, is_local
from real_vs_ai.serving.judge import Answer

FIELD = "files"
_MULTIPART = "multipart/form-data"
# A program that sends these expects another kind of service.
_NOT_IMAGES = ("application/json", "text/")
_MOST_OTHER_FIELDS = 10
_LONGEST_NAME = 255
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_DISCARD_SECONDS = 10.0
_FIRST_REFUSAL = 400
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


# The name of a file of a request, which is the client's (do not trust it), and its bytes.
Upload = tuple[str, bytes]


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, which would write files above 1 MB to disk."""

    # No request gets so large: its size is bounded before.
    spool_max_size = 2**40


def client_of(request: Request) -> str:
    """Who asks: the name of the key, otherwise the address, which a proxy on this machine tells."""
    if name := getattr(request.state, "key_name", ""):
        return name
    address = request.client.host if request.client else ""
    forwarded = request.headers.get("x-forwarded-for", "") if is_local(address) else ""
    return forwarded.rpartition(",")[2].strip() or address


def declared_size(request: Request, limits: Limits) -> int:
    """How many bytes a request may hold; RequestError if that is too much."""
    text = request.headers.get("content-length")
    # A request without a length may grow to the largest size.
    size = int(text) if text and text.isdecimal() else limits.max_request_bytes
    if size > limits.max_request_bytes:
        raise _too_large(limits)
    return size


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The files of a request, in their order, at least one.

    Raises:
        RequestError: It holds none, too many or too much, is of another kind, or came too slowly.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith(_NOT_IMAGES):
        raise RequestError(
            415,
            "unsupported_media_type",
            f"Expected an image or {_MULTIPART} with the field {FIELD!r}, found {kind[:80]}.",
        )
    try:
        async with asyncio.timeout(limits.receive_seconds):
            if kind == _MULTIPART:
                return await _read_form(request, limits)
            return [await _read_body(request, limits)]
    except TimeoutError as error:
        message = f"Expected the whole request within {limits.receive_seconds:g} s."
        raise RequestError(408, "too_slow", message) from error
    except ClientDisconnect as error:
        raise RequestError(400, "disconnected", "The request ended early.") from error


async def _read_form(request: Request, limits: Limits) -> list[Upload]:
    stream = _bounded(request.stream(), limits)
    parser = _InMemoryParser(
        request.headers, stream, max_files=limits.max_images, max_fields=_MOST_OTHER_FIELDS
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            message = f"Expected at most {limits.max_images} images in a request, found more."
            raise RequestError(413, "too_many_images", message) from error
        raise RequestError(400, "bad_form", f"The form is damaged: {error.message}") from error
    try:
        files = [file for file in form.getlist(FIELD) if isinstance(file, UploadFile)]
        if not files:
            fields = ", ".join(sorted({repr(name[:80]) for name in form})) or "none"
            raise RequestError(
                400, "no_images", f"Expected files in the field {FIELD!r}, found fields: {fields}."
            )
        return [((file.filename or "")[:_LONGEST_NAME], await file.read()) for file in files]
    finally:
        await form.close()


async def _read_body(request: Request, limits: Limits) -> Upload:
    data = b"".join([chunk async for chunk in _bounded(request.stream(), limits)])
    if not data:
        message = f"Expected an image, or files in the field {FIELD!r}, found an empty request."
        raise RequestError(400, "no_images", message)
    return request.query_params.get("name", "")[:_LONGEST_NAME], data


async def _bounded(stream: AsyncIterator[bytes], limits: Limits) -> AsyncGenerator[bytes, None]:
    received = 0
    async for chunk in stream:
        received += len(chunk)
        if received > limits.max_request_bytes:
            raise _too_large(limits)
        yield chunk


def _too_large(limits: Limits) -> RequestError:
    limit = f"{limits.max_request_bytes:,} bytes"
    return RequestError(413, "too_large", f"Expected a request of at most {limit}, found more.")


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
        status, has_ended = 500, False

        async def watched_receive() -> Message:
            nonlocal has_ended
            message = await receive()
            has_ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

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
                            while not has_ended:
                                await watched_receive()
            await send(message)

        try:
            await self._application(scope, watched_receive, watched_send)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            seconds = time.perf_counter() - started
            self._counters.count_request(path, status=status, seconds=seconds)
