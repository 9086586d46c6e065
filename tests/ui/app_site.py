"""Make models whose verdicts are known in advance, and images of every kind.

The colour model calls an image Fake when it has more red than blue, Real when it has more blue,
and is Uncertain when they are alike.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata

APP = Path(__file__).resolve().parents[2] / "App.py"
RED, BLUE, GREY = (220, 40, 40), (40, 40, 220), (128, 128, 128)


def make_colour_model(
    folder: Path, *, class_names: Sequence[str] = ("Fake", "Real"), **metadata: object
) -> Path:
    """A run folder whose softmax follows the mean of red, blue and green, in this order."""
    import keras

    inputs = keras.Input((32, 32, 3))
    convolution = keras.layers.Conv2D(3, 1, name="maps")
    dense = keras.layers.Dense(len(class_names), activation="softmax")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = convolution(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, dense(x))
    convolution.set_weights([np.eye(3)[None, None], np.zeros(3)])
    weights = np.zeros((3, len(class_names)))
    for index, channel in enumerate((0, 2, 1)[: len(class_names)]):
        weights[channel, index] = 6.0
    dense.set_weights([weights, np.zeros(len(class_names))])
    folder.mkdir(parents=True)
    values = {"class_names": tuple(class_names), "image_size": 32, **metadata}
    values.setdefault("metrics", METRICS["test"])
    save_model(model, folder / "model.h5", metadata=ModelMetadata(**values))
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    return folder / "model.h5"


METRICS = {
    "test": {
        "n": 200,
        "accuracy": {"value": 0.91, "low": 0.88, "high": 0.94},
        "recall": {"value": 0.93, "low": 0.9, "high": 0.96},
        "false_positive_rate": {"value": 0.04, "low": 0.02, "high": 0.06},
        "uncertain_share": {"value": 0.4, "low": 0.3, "high": 0.5},
        "error_when_certain": {"value": 0.1, "low": 0.05, "high": 0.15},
        "conditions": {
            name: {
                "generated": {"found": {"value": found}, "called_real": {"value": 0.05}},
                "real": {"accused": {"value": 0.02}},
            }
            for name, found in (("clean", 0.4), ("web", 0.3), ("JPEG quality 75", 0.35))
        },
        "weakest": {
            "generators": [
                {"name": "Krea", "n": 40, "found": {"value": 0.2}, "called_real": {"value": 0.3}}
            ]
        },
    },
    "validation": {"n": 100, "accuracy": 0.9},
}


def image_bytes(
    colour: tuple[int, int, int], *, size: tuple[int, int] = (40, 30), file_format: str = "PNG"
) -> bytes:
    """An image of one colour; `size` is width and height in pixels."""
    return encode(Image.new("RGB", size, colour), file_format)


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    """A Pillow image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def unusual_images() -> dict[str, bytes]:
    """One red image of every kind that needs care, by file name."""
    red = Image.new("RGB", (40, 20), RED)
    transparent = red.convert("RGBA")
    transparent.putpixel((0, 0), (0, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    blue = Image.new("RGB", (40, 20), BLUE)
    grey16 = Image.fromarray(np.full((20, 40), 30_000, dtype=np.uint16))
    return {
        "transparent.png": encode(transparent, "PNG"),
        "palette.gif": encode(red.convert("P"), "GIF"),
        "animated.gif": encode(red, "GIF", save_all=True, append_images=[blue], duration=100),
        "cmyk.jpg": encode(red.convert("CMYK"), "JPEG"),
        "grey.jpg": encode(red.convert("L"), "JPEG"),
        "grey16.png": encode(grey16, "PNG"),
        "rotated.jpg": encode(red, "JPEG", exif=exif),
        "photo.webp": encode(red, "WEBP"),
        "photo.bmp": encode(red, "BMP"),
        "photo.tiff": encode(red, "TIFF"),
        "photo.avif": encode(red, "AVIF"),
        "mislabelled.png": encode(red, "JPEG"),
    }


class GeminiHandler(BaseHTTPRequestHandler):
    """Answers as Gemini's streaming API does; `server.mode` says how."""

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, self.headers.get("x-goog-api-key"), body))
        mode = self.server.mode
        if isinstance(mode, int):
            error = {"error": {"code": mode, "message": "API key not valid", "status": "BAD"}}
            self._send(mode, "application/json", json.dumps(error).encode())
        elif mode == "silent":
            self.server.released.wait(20)
        elif mode in ("slow", "dropped"):
            self._send_in_two(_events("ok"), whole=mode == "slow")
        else:
            self._send(200, "text/event-stream", b"".join(_events(mode)))

    def _send_in_two(self, events: list[bytes], *, whole: bool) -> None:
        """The first event at once; the rest when the server is released, or never."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(sum(map(len, events))))
        self.end_headers()
        self.wfile.write(events[0])
        self.wfile.flush()
        if whole and self.server.released.wait(20):
            self.wfile.write(b"".join(events[1:]))

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def make_gemini_server() -> ThreadingHTTPServer:
    """A server on a free port of this machine; serve and close it in the test's fixture."""
    import threading

    server = ThreadingHTTPServer(("127.0.0.1", 0), GeminiHandler)
    server.mode, server.requests, server.released = "ok", [], threading.Event()
    return server


def _events(mode: str) -> list[bytes]:
    if mode == "junk":
        return [b"data: {not json\n\n"]
    if mode == "blocked":
        chunks = [{"promptFeedback": {"blockReason": "SAFETY"}}]
    elif mode == "empty":
        chunks = []
    else:
        texts = ("A red square. ", "![pixel](http://tracker.example/x.png) **Nothing** odd.")
        chunks = [
            {"candidates": [{"content": {"role": "model", "parts": [{"text": t}]}}]} for t in texts
        ]
        reason = "STOP" if mode == "ok" else mode
        chunks.append(
            {
                "candidates": [
                    {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason}
                ]
            }
        )
    return [b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks]
