"""Room for requests is bounded, and freed however a request ends."""

from __future__ import annotations

import asyncio

import pytest

from real_vs_ai.service.limits import Admission, Limits, RequestError


def test_room_is_bounded_by_number_and_bytes_and_given_back():
    limits = Limits(max_requests=2, max_held_bytes=100)
    admission = Admission(limits)

    async def fill():
        async with admission.request(size=60):
            with pytest.raises(RequestError, match="busy"):
                await enter(admission, size=41)
            async with admission.request(size=40):
                with pytest.raises(RequestError, match="busy"):
                    await enter(admission, size=0)
            with pytest.raises(ZeroDivisionError):
                async with admission.request(size=40):
                    raise ZeroDivisionError

    asyncio.run(fill())
    assert (admission.requests, admission.held_bytes) == (0, 0)


async def enter(admission: Admission, *, size: int) -> None:
    async with admission.request(size=size):
        pass


def test_stop_lets_requests_end_interrupts_the_late_and_refuses_the_new():
    admission = Admission(Limits())

    async def wait_for(event: asyncio.Event) -> str:
        async with admission.request(size=1):
            await event.wait()
        return "answered"

    async def stop_under_load():
        soon, never = asyncio.Event(), asyncio.Event()
        quick, late = (asyncio.create_task(wait_for(event)) for event in (soon, never))
        await asyncio.sleep(0)
        stopped = asyncio.create_task(admission.stop(seconds=0.2))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="stopping"):
            await enter(admission, size=1)
        soon.set()
        await stopped
        assert await quick == "answered"
        with pytest.raises(RequestError, match="stopping") as refused:
            await late
        assert refused.value.status == 503

    asyncio.run(stop_under_load())
    assert admission.requests == 0
