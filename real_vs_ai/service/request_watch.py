"""Count every request, and let a client that is refused early read why."""

from __future__ import annotations

import contextlib
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from real_vs_ai.service.counters import Counters
from real_vs_ai.service.limits import Admission

_DISCARD_SECONDS = 10.0
_FIRST_REFUSAL = 400


class RequestWatch:
    """An ASGI middleware."""

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
