"""Clients need keys wherever others can reach the service; room for their requests is bounded."""

from __future__ import annotations

import asyncio
import stat

import pytest

from real_vs_ai.core.errors import InputError
from real_vs_ai.service.access import (
    Admission,
    Limits,
    RequestError,
    add_key,
    is_local,
    read_keys,
    required_keys,
)


def test_file_holds_hashes_that_only_the_owner_reads(tmp_path):
    path = tmp_path / "keys.txt"
    first, second = add_key(path, name="a"), add_key(path, name="b")
    assert first not in path.read_text() and second not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = read_keys(path)
    assert (keys.name_of(first), keys.name_of(second), keys.name_of("")) == ("a", "b", "")
    assert keys.name_of("\udc80") == ""


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak", "a"])
def test_name_that_is_taken_or_unfit_is_refused(tmp_path, name):
    path = tmp_path / "keys.txt"
    add_key(path, name="a")
    before = path.read_bytes()
    with pytest.raises(InputError):
        add_key(path, name=name)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "# none yet\n", "a secret\n", "a " + "0" * 64 + " b\n"])
def test_damaged_file_of_keys_is_refused(tmp_path, text):
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(InputError):
        read_keys(path)


def test_address_beyond_this_machine_needs_keys(tmp_path):
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "localhost.example.org", "")))
    assert required_keys(None, address="127.0.0.1") is None
    with pytest.raises(InputError, match="--new-key"):
        required_keys(None, address="0.0.0.0")
    with pytest.raises(FileNotFoundError):
        required_keys(tmp_path / "none.txt", address="localhost")


def test_room_is_bounded_by_number_and_bytes_and_given_back():
    limits = Limits(max_requests=2, max_held_bytes=100)
    admission = Admission(limits)

    async def fill():
        async with admission.request(size=60, client="a"):
            with pytest.raises(RequestError, match="busy"):
                await enter(admission, size=41)
            async with admission.request(size=40, client="b"):
                with pytest.raises(RequestError, match="busy"):
                    await enter(admission, size=0)
            with pytest.raises(ZeroDivisionError):
                async with admission.request(size=40, client="b"):
                    raise ZeroDivisionError

    asyncio.run(fill())
    assert (admission.requests, admission.held_bytes) == (0, 0)


async def enter(admission: Admission, *, size: int, client: str = "c") -> None:
    async with admission.request(size=size, client=client):
        pass


@pytest.mark.parametrize(
    "limits",
    [Limits(max_requests=3, max_client_requests=2), Limits(max_client_bytes=20)],
    ids=["requests", "bytes"],
)
def test_one_client_leaves_room_to_the_others(limits):
    admission = Admission(limits)

    async def fill():
        async with (
            admission.request(size=10, client="greedy"),
            admission.request(size=10, client="greedy"),
        ):
            with pytest.raises(RequestError, match="You have 2 requests") as refused:
                await enter(admission, size=10, client="greedy")
            assert refused.value.status == 429 and refused.value.headers["Retry-After"]
            await enter(admission, size=10, client="other")
        await enter(admission, size=10, client="greedy")

    asyncio.run(fill())
    assert not admission._of_clients and not admission._bytes_of_clients


def test_stop_lets_requests_end_interrupts_the_late_and_refuses_the_new():
    admission = Admission(Limits())

    async def wait_for(event: asyncio.Event) -> str:
        async with admission.request(size=1, client="a"):
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
