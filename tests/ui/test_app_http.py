"""The app's server withstands hostile uploads, forged requests and many visitors."""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator

import psutil
import pytest
from app_site import BLUE, RED, image_bytes, make_colour_model, unusual_images
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from benchmarks.app_client import AppClient, Page
from benchmarks.app_load import RunningApp, running_app

HOST = "localhost"
# The server may grow by this while it reads hostile files, whose honest size is many times it.
MOST_GROWTH_MB = 700


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> RunningApp:
    folder = tmp_path_factory.mktemp("http")
    model = make_colour_model(
        folder / "colour", calibrated=True, lower_threshold=0.3, upper_threshold=0.7
    )
    with running_app(model) as running:
        yield running


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that claims a size, with other chunks in place of honest pixels."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks]
    parts += [(b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def with_jpeg_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def zip_of_an_image() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("image.png", image_bytes(RED))
    return buffer.getvalue()


def chosen_attacks() -> dict[str, bytes]:
    """One file for each way of being hostile that is not found by chance."""
    jpeg = image_bytes(RED, file_format="JPEG")
    text_bomb = b"Comment\0\0" + zlib.compress(b"a" * 50_000_000)
    return {
        "empty.png": b"",
        "one-byte.jpg": b"\xff",
        "page.png": b"<html><script>alert(1)</script></html>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        "archive.jpg": zip_of_an_image(),
        "pictures.zip": zip_of_an_image(),
        "cut.zip": zip_of_an_image()[:60],
        "many.zip": b"PK\x01\x02" * 10**6,
        "program.bmp": b"MZ" + bytes(500),
        "postscript.tiff": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "zeros.webp": bytes(5000),
        "huge.png": png(100_000, 100_000),
        "wide.png": png(2**31 - 1, 1),
        "below-the-limit.png": png(9_000, 9_000),
        "no-pixels.png": png(0, 0),
        "text-bomb.png": png(40, 30, (b"zTXt", text_bomb)),
        "profile.png": png(40, 30, (b"iCCP", b"x\0\0" + zlib.compress(bytes(10_000_000)))),
        "huge.jpg": with_jpeg_size(jpeg, 65_500, 65_500),
        "other-size.jpg": with_jpeg_size(jpeg, 9_000, 9_000),
        "huge.gif": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + b";",
        "huge.bmp": b"BM"
        + struct.pack("<IHHI", 100, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "scans.jpg": jpeg[:-2] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" * 500 + b"\xff\xd9",
    }


def hostile_files(count: int) -> dict[str, bytes]:
    """The chosen attacks, then files of every kind mutated, cut off or spliced at random."""
    files = chosen_attacks()
    chance = random.Random(11)
    whole = list(unusual_images().values())
    while len(files) < count:
        data = bytearray(chance.choice(whole))
        for _ in range(chance.choice((0, 1, 5, 50))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        kept = bytes(data[: chance.randint(1, len(data))] if chance.random() < 0.6 else data)
        if chance.random() < 0.2:
            kept += chance.choice(whole)
        files[f"random-{len(files)}.{chance.choice(('png', 'jpg', 'gif', 'webp'))}"] = kept
    return files


def outcome(page: Page) -> str:
    """The conclusion's heading; "" when the page shows none."""
    found = [t for t in page.texts if t.startswith("## ")]
    return found[0] if found else ""


@contextlib.contextmanager
def watched_memory(app: RunningApp) -> Iterator[list[float]]:
    """The server's resident memory in MB, sampled while the block runs."""
    server, samples, ended = psutil.Process(app.process.pid), [], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            samples.append(server.memory_info().rss / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        ended.set()
        watcher.join()


@pytest.mark.slow
def test_hostile_uploads_one_after_another_and_at_once_get_a_message_or_a_verdict(app):
    with AppClient(HOST, app.port) as visitor:
        visitor.load()
        visitor.upload({"warm.png": image_bytes(RED)})
        before = psutil.Process(app.process.pid).memory_info().rss / 2**20
        with watched_memory(app) as samples:
            for name, data in hostile_files(40).items():
                page = visitor.upload({name: data})
                assert not page.failed and outcome(page), (name, page.texts)
            page = visitor.upload(hostile_files(100))
            assert not page.failed
        # The caption of the table with all of them.
        assert any("Select a row" in text for text in page.texts)
        assert "No sign of AI" in outcome(visitor.upload({"blue.png": image_bytes(BLUE)}))
    assert max(samples) - before < MOST_GROWTH_MB


def test_uploads_without_the_sessions_token_are_refused(app):
    connection = http.client.HTTPConnection(HOST, app.port, timeout=30)
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    connection.request("PUT", "/_stcore/upload_file/session/file", body, headers)
    assert connection.getresponse().status == 403


def test_pages_of_other_sites_cannot_speak_to_the_app(app):
    with (
        pytest.raises(InvalidStatus) as refused,
        connect(f"ws://{HOST}:{app.port}/_stcore/stream", origin="http://evil.example"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_visitors_at_once_get_each_their_own_verdict(app):
    wrong = []

    def visit(number: int) -> None:
        colour, words = ((RED, "AI-generated"), (BLUE, "No sign of AI"))[number % 2]
        with AppClient(HOST, app.port) as visitor:
            visitor.load()
            for turn in range(3):
                name = f"{number}-{turn}.png"
                page = visitor.upload({name: image_bytes((*colour[:2], colour[2] - turn))})
                # The dot of a name is set so that it makes no link.
                named = any(text.startswith(f"{number}-{turn}") for text in page.texts)
                if page.failed or words not in outcome(page) or not named:
                    wrong.append((name, page.texts))

    visitors = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    [visitor.start() for visitor in visitors]
    [visitor.join() for visitor in visitors]
    assert wrong == []
