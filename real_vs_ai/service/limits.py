"""Limit what a request may ask for, and how much the service accepts at a time.

All of it runs in the server's event loop, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from real_vs_ai.config import MAX_IMAGE_PIXELS
from real_vs_ai.errors import RealVsAIError

MEGA = 10**6
# The weight of the newest request in the mean time of requests.
_NEWEST_SHARE = 0.2
_LONGEST_WAIT_SECONDS = 60
_REFUSAL_SECONDS = 0.3
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Limits:
    """Bounds of one request and of all requests together; ApiServer.py has an option for one.

    Attributes:
        max_image_bytes: The largest image file.
        max_image_pixels: The largest image, width × height.
        max_images: The most images in one request.
        max_request_bytes: The largest body of a request.
        max_requests: The most requests that are received or answered at the same time.
        max_held_bytes: The most bytes of all bodies at the same time; at least one request's.
        receive_seconds: The time within which a request's body must have come.
    """

    max_image_bytes: int = 50 * MEGA
    max_image_pixels: int = MAX_IMAGE_PIXELS
    max_images: int = 100
    max_request_bytes: int = 200 * MEGA
    max_requests: int = 64
    max_held_bytes: int = 1000 * MEGA
    receive_seconds: float = 60


class RequestError(RealVsAIError):
    """A refused request; becomes a JSON answer with this HTTP status, code and headers."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers


class Admission:
    """Lets requests in as long as there is room, and none once the service is to end.

    Attributes:
        held_bytes: The bytes of the requests that are in.
        is_stopping: Whether the service is to end.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._mean_seconds = 1.0
        self._ends_at = math.inf
        self._running: set[asyncio.Timeout] = set()
        self.requests = 0
        self.held_bytes = 0

    @property
    def is_stopping(self) -> bool:
        return self._ends_at < math.inf

    @contextlib.asynccontextmanager
    async def request(self, *, size: int) -> AsyncIterator[None]:
        """Hold a place and `size` bytes while the block runs.

        Raises:
            RequestError: There is no room now: status 429, with the seconds to wait. Or the service
                ends: status 503.
        """
        limits = self._limits
        if self.is_stopping:
            raise stopping()
        if self.requests >= limits.max_requests or self.held_bytes + size > limits.max_held_bytes:
            # By then about as much time has passed as a request takes.
            seconds = min(max(1, math.ceil(self._mean_seconds)), _LONGEST_WAIT_SECONDS)
            message = f"The service is busy. Send the request again in {seconds} s."
            raise RequestError(429, "busy", message, **{"Retry-After": str(seconds)})
        self.requests += 1
        self.held_bytes += size
        started = time.monotonic()
        try:
            async with self.time_limit(math.inf):
                yield
        except TimeoutError as error:
            raise stopping() from error
        finally:
            self.requests -= 1
            self.held_bytes -= size
            self._mean_seconds += _NEWEST_SHARE * (time.monotonic() - started - self._mean_seconds)

    @contextlib.asynccontextmanager
    async def time_limit(self, seconds: float) -> AsyncIterator[None]:
        """Interrupt the block after so many seconds, or when the service ends: TimeoutError."""
        now = asyncio.get_running_loop().time()
        # A refusal that begins when the service ends still gets out.
        latest = max(self._ends_at, now + _REFUSAL_SECONDS)
        async with asyncio.timeout_at(min(now + seconds, latest)) as timeout:
            self._running.add(timeout)
            try:
                yield
            finally:
                self._running.discard(timeout)

    async def stop(self, *, seconds: float) -> None:
        """Let nobody in any more; return when all have ended, interrupted after so many seconds."""
        self._ends_at = asyncio.get_running_loop().time() + seconds
        for timeout in self._running:
            timeout.reschedule(min(timeout.when() or math.inf, self._ends_at))
        while self._running:
            await asyncio.sleep(_POLL_SECONDS)


def stopping() -> RequestError:
    """The refusal of a service that ends."""
    message = "The service is stopping. Send the request again, to another one or later."
    return RequestError(503, "stopping", message, **{"Retry-After": "5"})
