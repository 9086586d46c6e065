"""Send the service what costs most: huge pictures among ordinary ones, and hostile files.

First each hostile file alone: how long it takes, and how much memory. Then clients send requests
without a pause, one in five a PNG of 88 megapixels: the highest memory, and how long the others
waited.

Example:
    python -m benchmarks.bench_huge --model models/released --clients 32 --seconds 60
"""

from __future__ import annotations

import io
import struct
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.bench_service import Service, running_service, send
from benchmarks.common import make_photograph
from real_vs_ai.cli import command, make_parser, whole_number
from real_vs_ai.reporting import format_table

_SIDE = 9_400
_ONE_IN = 5


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
    """The service's resident memory in MB, watched by a thread.

    Attributes:
        highest: The most since the last `restart`.
    """

    def __init__(self, service: Service) -> None:
        self._process, self.highest = psutil.Process(service.pid), 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def restart(self) -> float:
        """Begin again; returns the memory now."""
        self.highest = now = self._now()
        return now

    def _now(self) -> float:
        return self._process.memory_info().rss / 2**20

    def _watch(self) -> None:
        while self._process.is_running():
            self.highest = max(self.highest, self._now())
            time.sleep(0.02)


@contextmanager
def _watched_service(model: Path) -> Iterator[tuple[Service, Memory]]:
    with running_service(model) as service, tempfile.TemporaryDirectory() as folder:
        first = Path(folder, "first.jpg")
        first.write_bytes(make_photograph(99, width=800, height=600))
        send(service.port, [first])
        yield service, Memory(service)


def measure_hostile(model: Path, folder: Path) -> list[list[object]]:
    """A row for each file: its name, status, seconds, and memory above the idle service in MB."""
    rows = []
    with _watched_service(model) as (service, memory):
        for name, data in hostile_files():
            path = folder / name
            path.write_bytes(data)
            before, started = memory.restart(), time.perf_counter()
            status, _ = send(service.port, [path])
            seconds = time.perf_counter() - started
            rows.append([name, status, f"{seconds:.2f}", f"{memory.highest - before:,.0f}"])
    return rows


def measure_crowd(model: Path, folder: Path, *, clients: int, seconds: float) -> str:
    """What many clients met, in a line."""
    ordinary = folder / "ordinary.jpg"
    ordinary.write_bytes(make_photograph(2, width=800, height=600))
    huge = folder / "88 megapixels.png"
    statuses: Counter[str] = Counter()
    waits: list[float] = []
    with _watched_service(model) as (service, memory):
        idle, deadline = memory.restart(), time.monotonic() + seconds

        def visit(number: int) -> None:
            turn = number
            while time.monotonic() < deadline:
                path = ordinary if turn % _ONE_IN else huge
                started = time.perf_counter()
                status, _ = send(service.port, [path])
                statuses[f"{path.name}: {status}"] += 1
                if path == ordinary:
                    waits.append(time.perf_counter() - started)
                turn += 1

        with ThreadPoolExecutor(clients) as crowd:
            list(crowd.map(visit, range(clients)))
        answers = ", ".join(f"{name} {count}" for name, count in sorted(statuses.items()))
        return (
            f"{clients} clients, {seconds} s: memory {idle:,.0f} MB idle, at most "
            f"{memory.highest:,.0f} MB; ordinary pictures within "
            f"{np.median(waits):.1f} s (median), {np.percentile(waits, 95):.1f} s (95 %); {answers}"
        )


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/released"), help="a model")
    parser.add_argument("--clients", type=whole_number(1), default=32, help="how many at once")
    parser.add_argument("--seconds", type=whole_number(1), default=60, help="how long they send")
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        header = ["file", "status", "seconds", "MB above idle"]
        print(format_table(header, measure_hostile(args.model, folder)), flush=True)
        crowd = measure_crowd(args.model, folder, clients=args.clients, seconds=args.seconds)
        print(f"\n{crowd}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
