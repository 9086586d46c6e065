"""Send the service, or the page, what costs most: huge pictures and hostile files.

First each hostile file alone: how long it takes, and how much memory. Then clients send requests
without a pause, one in five a PNG of 88 megapixels: the highest memory, and how long the others
waited.

Example:
    python -m benchmarks.bench_huge --model models/released --clients 32 --seconds 60
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.app_client import AppClient
from benchmarks.app_load import running_app
from benchmarks.bench_service import running_service, send
from benchmarks.common import make_photograph
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.options import whole_number
from real_vs_ai.core.reporting import format_table

_SIDE = 9_400
_ONE_IN = 5
_TIMEOUT_SECONDS = 600.0


def huge_png(side: int) -> bytes:
    """A smooth picture that compresses to a few megabytes."""
    across = np.linspace(0, 255, side)
    grey = (np.add.outer(across, across) / 2).astype(np.uint8)
    picture = Image.fromarray(np.stack([grey, grey[::-1], grey.T], axis=2))
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """Names and contents below 50 MB."""
    jpeg = make_photograph(1, width=400, height=300)
    yield "10 million empty segments.jpg", jpeg[:2] + b"\xff\xe1\x00\x02" * 10**7 + jpeg[2:]
    exif = b"\xff\xe1" + struct.pack(">H", 65_535) + b"Exif\0\0".ljust(65_533, b"\0")
    yield "700 Exif segments.jpg", jpeg[:2] + exif * 700 + jpeg[2:]
    file = io.BytesIO()
    Image.open(io.BytesIO(jpeg)).save(file, "PNG")
    png, text = file.getvalue(), b"tEXtk\0v"
    chunk = struct.pack(">I", 3) + text + struct.pack(">I", zlib.crc32(text))
    yield "2 million text chunks.png", png[:33] + chunk * 2 * 10**6 + png[33:]
    yield "88 megapixels.png", huge_png(_SIDE)


class Memory:
    """A process's resident memory in MB, watched by a thread.

    Attributes:
        highest: The most since the last `restart`.
    """

    def __init__(self, pid: int) -> None:
        """Watch the process with this number, as long as it lives."""
        self._process, self.highest = psutil.Process(pid), 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def restart(self) -> float:
        """Begin again; returns the memory now."""
        self.highest = now = self._now()
        return now

    def _now(self) -> float:
        return self._process.memory_info().rss / 2**20

    def _watch(self) -> None:
        with contextlib.suppress(psutil.Error):
            while True:
                self.highest = max(self.highest, self._now())
                time.sleep(0.02)


# Sends a file, and says what became of it.
Ask = Callable[[Path], str]


@contextmanager
def service_door(model: Path) -> Iterator[tuple[int, Callable[[], AbstractContextManager[Ask]]]]:
    """The service's process, and what makes a client of it."""

    @contextmanager
    def client() -> Iterator[Ask]:
        yield lambda path: f"status {send(service.port, [path])[0]}"

    with running_service(model) as service:
        yield service.pid, client


@contextmanager
def page_door(model: Path) -> Iterator[tuple[int, Callable[[], AbstractContextManager[Ask]]]]:
    """The page's process, and what makes a visitor to it."""

    @contextmanager
    def visitor() -> Iterator[Ask]:
        with AppClient("localhost", app.port, timeout_s=_TIMEOUT_SECONDS) as client:
            client.load()

            def ask(path: Path) -> str:
                # A file that was seen before would be answered from the session.
                data = path.read_bytes() + os.urandom(8)
                return "failed" if client.upload({path.name: data}).failed else "answered"

            yield ask

    with running_app(model) as app:
        yield app.process.pid, visitor


DOORS = {"service": service_door, "page": page_door}


def _warm_up(ask: Ask, folder: Path) -> None:
    first = folder / "first.jpg"
    first.write_bytes(make_photograph(99, width=800, height=600))
    ask(first)


def measure_hostile(door: str, model: Path, folder: Path) -> list[list[object]]:
    """A row for each file: its name, outcome, seconds, and memory above the idle process in MB."""
    rows = []
    with DOORS[door](model) as (pid, client), client() as ask:
        _warm_up(ask, folder)
        memory = Memory(pid)
        for name, data in hostile_files():
            path = folder / name
            path.write_bytes(data)
            before, started = memory.restart(), time.perf_counter()
            outcome = ask(path)
            seconds = time.perf_counter() - started
            rows.append([name, outcome, f"{seconds:.2f}", f"{memory.highest - before:,.0f}"])
    return rows


def measure_crowd(door: str, model: Path, folder: Path, *, clients: int, seconds: float) -> str:
    """What many clients met, in a line."""
    ordinary, huge = folder / "ordinary.jpg", folder / "huge.png"
    ordinary.write_bytes(make_photograph(2, width=800, height=600))
    huge.write_bytes(huge_png(_SIDE))
    outcomes: Counter[str] = Counter()
    waits: list[float] = []
    with DOORS[door](model) as (pid, client):
        with client() as ask:
            _warm_up(ask, folder)
        memory = Memory(pid)
        idle, deadline = memory.restart(), time.monotonic() + seconds

        def visit(number: int) -> None:
            turn = number
            with client() as ask:
                while time.monotonic() < deadline:
                    path = ordinary if turn % _ONE_IN else huge
                    started = time.perf_counter()
                    outcomes[f"{path.name} {ask(path)}"] += 1
                    if path == ordinary:
                        waits.append(time.perf_counter() - started)
                    turn += 1

        with ThreadPoolExecutor(clients) as crowd:
            list(crowd.map(visit, range(clients)))
    counts = ", ".join(f"{name}: {count}" for name, count in sorted(outcomes.items()))
    return (
        f"{door}, {clients} clients for {seconds} s: {idle:,.0f} MB idle, at most "
        f"{memory.highest:,.0f} MB; ordinary pictures within {np.median(waits):.1f} s (median), "
        f"{np.percentile(waits, 95):.1f} s (95 %); {counts}"
    )


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/released"), help="a model")
    parser.add_argument("--door", choices=DOORS, default="service", help="whom they ask")
    parser.add_argument("--clients", type=whole_number(1), default=32, help="how many at once")
    parser.add_argument("--seconds", type=whole_number(1), default=60, help="how long they send")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        header = [args.door, "outcome", "seconds", "MB above idle"]
        print(format_table(header, measure_hostile(args.door, args.model, folder)), flush=True)
        how = {"clients": args.clients, "seconds": args.seconds}
        print(f"\n{measure_crowd(args.door, args.model, folder, **how)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
