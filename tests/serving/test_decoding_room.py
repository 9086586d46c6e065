"""Huge images are decoded one at a time, and leave a place for ordinary ones."""

import io
import threading

import pytest
from PIL import Image

from real_vs_ai.serving import decoding_room
from real_vs_ai.serving.decoding_room import DecodingRoom


def picture(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def enters(room: DecodingRoom, data: bytes) -> threading.Event:
    """Set once work on the file has begun."""
    begun = threading.Event()
    threading.Thread(target=room.run, args=(data, begun.set), daemon=True).start()
    return begun


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(decoding_room, "_HUGE_PIXELS", 1_000)
    monkeypatch.setattr(decoding_room, "_HUGE_BYTES", 10_000)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("huge", [picture(40, 40), bytes(10_001)])
def test_huge_files_wait_for_one_another_and_ordinary_ones_do_not(huge):
    room, ended = DecodingRoom(), threading.Event()
    first = threading.Thread(target=room.run, args=(huge, ended.wait))
    first.start()
    second = enters(room, huge)
    assert enters(room, picture(20, 20)).wait(10)
    assert enters(room, b"not an image").wait(10)
    assert not second.wait(0.2)
    ended.set()
    assert second.wait(10)
    first.join()


def test_what_goes_wrong_in_the_work_reaches_its_caller():
    with pytest.raises(ZeroDivisionError):
        DecodingRoom().run(b"", lambda: 1 / 0)
