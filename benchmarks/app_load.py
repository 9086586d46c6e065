"""The measurements of bench_app.py: starts the app, visits it, watches its memory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from benchmarks.app_client import AppClient, Page
from benchmarks.common import make_photograph
from real_vs_ai.core.messages import ENGLISH
from real_vs_ai.serving.detector import Detector
from real_vs_ai.ui.wording import as_markdown, heading
from real_vs_ai.verdicts.conclusion import conclude

_APP = Path(__file__).resolve().parent.parent / "App.py"
_HOST = "localhost"
_HEADING = "## "


@dataclass
class RunningApp:
    """The app's server, a process of its own."""

    process: subprocess.Popen
    port: int


@dataclass
class Load:
    """What many visitors met.

    Attributes:
        seconds: From the start of each upload to its verdict.
        errors: Uploads that failed, or pages that did.
        mixed_up: Verdicts that belong to another image.
        duration: How long the visitors were there, in seconds.
        cpu_seconds: What the server computed meanwhile, all cores together.
        memory_before_mb: The server's resident memory before they came.
        memory_half_way_mb: After half of their time; what grows after it may grow for ever.
        memory_highest_mb: The most it was while they were there.
    """

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    mixed_up: int = 0
    duration: float = 0.0
    cpu_seconds: float = 0.0
    memory_before_mb: float = 0.0
    memory_half_way_mb: float = 0.0
    memory_highest_mb: float = 0.0


@contextlib.contextmanager
def running_app(model: Path, *, environment: dict[str, str] | None = None) -> Iterator[RunningApp]:
    """The app, started as users start it, with these variables too; ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [sys.executable, str(_APP), "--model", str(model), "--port", str(port)]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | (environment or {}),
    )
    try:
        _wait_until_healthy(port, process)
        yield RunningApp(process, port)
    finally:
        process.terminate()
        process.wait(30)


def measure_cold_start(model: Path) -> float:
    """Seconds from starting the process until the first page is complete."""
    began = time.perf_counter()
    with running_app(model) as app, AppClient(_HOST, app.port) as visitor:
        page = visitor.load()
        seconds = time.perf_counter() - began
    if page.failed or not page.uploader_id:
        raise RuntimeError("Expected the first page with an uploader, found none.")
    return seconds


def measure_first_upload(model: Path, *, environment: dict[str, str]) -> float:
    """Seconds from the first page's completion to the verdict on a picture uploaded at once."""
    picture = make_photograph(7, width=800, height=600)
    with running_app(model, environment=environment) as app, AppClient(_HOST, app.port) as visitor:
        visitor.load()
        began = time.perf_counter()
        page = visitor.upload({"first.jpg": picture})
        seconds = time.perf_counter() - began
    if page.failed or not _verdict(page):
        raise RuntimeError(f"Expected a verdict on the page, found none: {page.texts}")
    return seconds


def measure_batch(model: Path, *, count: int) -> tuple[float, float]:
    """Seconds for pictures of 3 megapixels: uploaded at once to an open page, and by the script.

    The script's time holds its start, the page's the upload.
    """
    pictures = {
        f"{n}.jpg": make_photograph(n, width=2_000, height=1_500) for n in range(min(count, 20))
    }
    # Bytes after a JPEG's end make another file of it, and change no pixel.
    batch = {f"{n}.jpg": pictures[f"{n % 20}.jpg"] + n.to_bytes(2, "big") for n in range(count)}
    with running_app(model) as app, AppClient(_HOST, app.port, timeout_s=600) as visitor:
        visitor.load()
        # The model is open once it has judged something.
        visitor.upload({"first.jpg": make_photograph(count, width=800, height=600)})
        began = time.perf_counter()
        page = visitor.upload(batch)
        by_page = time.perf_counter() - began
    if page.failed:
        raise RuntimeError(f"Expected answers on the page, found none: {page.texts}")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in batch.items():
            (Path(folder) / name).write_bytes(data)
        output = Path(folder) / "scores.csv"
        script = [
            sys.executable,
            str(_APP.with_name("ImageScoring.py")),
            folder,
            "--output",
            str(output),
        ]
        began = time.perf_counter()
        subprocess.run([*script, "--model", str(model)], check=True, capture_output=True)
        return by_page, time.perf_counter() - began


def measure_single_visitor(app: RunningApp, *, uploads: int) -> list[float]:
    """Seconds from the start of each upload until the page with the verdict is complete."""
    photographs = [make_photograph(seed, width=4000, height=3000) for seed in range(4)]
    seconds = []
    with AppClient(_HOST, app.port) as visitor:
        visitor.load()
        # The first one also waits for the model.
        visitor.upload({"first.jpg": make_photograph(99, width=400, height=300)})
        for number in range(uploads):
            # The same picture under the same content would be answered from the session.
            data = photographs[number % len(photographs)] + bytes([number])
            began = time.perf_counter()
            page = visitor.upload({f"{number}.jpg": data})
            seconds.append(time.perf_counter() - began)
            if page.failed or not _verdict(page):
                raise RuntimeError(
                    f"Expected a verdict for upload {number}, found "
                    f"{'an error' if page.failed else 'none'} on the page: {page.texts}"
                )
    return seconds


def measure_load(app: RunningApp, *, model: Path, sessions: int, seconds: float) -> Load:
    """Let many visitors upload without pause, each watching for its own answers."""
    known = _known_answers(model, count=24)
    load = Load(memory_before_mb=_memory_mb(app))
    deadline = time.monotonic() + seconds
    lock = threading.Lock()
    visitors = [
        threading.Thread(target=_visit, args=(app, known, number, deadline, load, lock))
        for number in range(sessions)
    ]
    began, computed = time.monotonic(), cpu_seconds(app)
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        load.memory_highest_mb = max(load.memory_highest_mb, _memory_mb(app))
        if time.monotonic() < began + seconds / 2:
            load.memory_half_way_mb = load.memory_highest_mb
        time.sleep(0.5)
    load.duration = time.monotonic() - began
    load.cpu_seconds = cpu_seconds(app) - computed
    return load


def cpu_seconds(app: RunningApp) -> float:
    """What the server has computed so far, all cores together; says something on a busy machine."""
    times = psutil.Process(app.process.pid).cpu_times()
    return times.user + times.system


def quantile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return float(np.quantile(values, share))


def _known_answers(model: Path, *, count: int) -> list[tuple[bytes, str]]:
    """Images with the heading that the page must show for each."""
    detector = Detector.open(model)
    answers = []
    for seed in range(count):
        data = make_photograph(1000 + seed, width=800, height=600)
        found = conclude(detector.predict(data), ())
        answers.append((data, heading(found, language=ENGLISH)))
    return answers


def _visit(
    app: RunningApp,
    known: list[tuple[bytes, str]],
    number: int,
    deadline: float,
    load: Load,
    lock: threading.Lock,
) -> None:
    random = np.random.default_rng(number)
    try:
        with AppClient(_HOST, app.port) as visitor:
            visitor.load()
            while time.monotonic() < deadline:
                data, words = known[random.integers(len(known))]
                name = f"visitor-{number}-{random.integers(10**9)}.jpg"
                began = time.monotonic()
                # Bytes after a JPEG's end change nothing but make it a content of its own.
                page = visitor.upload({name: data + random.bytes(8)})
                seconds = time.monotonic() - began
                texts = "\n".join(page.texts)
                right = as_markdown(name) in texts and words in _verdict(page)
                with lock:
                    load.seconds.append(seconds)
                    load.errors += page.failed
                    load.mixed_up += not page.failed and not right
    except Exception as error:  # A visitor that cannot go on is an error of the app's.
        print(f"visitor {number}: {error!r}", file=sys.stderr)
        with lock:
            load.errors += 1


def _verdict(page: Page) -> str:
    return next((text for text in page.texts if text.startswith(_HEADING)), "")


def _memory_mb(app: RunningApp) -> float:
    return psutil.Process(app.process.pid).memory_info().rss / 2**20


def _wait_until_healthy(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Expected the app to serve, found exit code {process.returncode}.")
        try:
            if urllib.request.urlopen(f"http://{_HOST}:{port}/_stcore/health").read() == b"ok":
                return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError("Expected the app to answer within 120 s, found no answer.")
