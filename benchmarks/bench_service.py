"""Compare the service with ImageScoring.py: the same images, model and machine, in one run.

Turns of both alternate, each in a process of its own, and the medians are compared. Then clients
ask at twice the rate that the service can answer, and every answer is compared with its image. The
service may refuse requests (429), but lose or mix up none. With --kills it is killed meanwhile and
started again, and clients send again what had no answer.

Example:
    python -m benchmarks.bench_service --images 192 --repeats 3 --seconds 600 --kills 3
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np

from benchmarks.bench_inference import make_images
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.options import whole_number
from real_vs_ai.core.reporting import format_table
from real_vs_ai.models.runs import find_model

_REPOSITORY = Path(__file__).resolve().parents[1]
_CLIENTS = 16
_IMAGES_IN_REQUEST = 8
_ANSWERED, _TOO_BUSY, _NOT_READY = 200, 429, 503
_TIMEOUT_SECONDS = 300
_MOST_FAILURES = 1000
_BOUNDARY = "benchmark-of-the-service"


class Service:
    """A service that is ready, and that can be killed and started again at its port.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, model: Path) -> None:
        """Start it."""
        self._model, self.port = model, 0
        self.start()

    def start(self) -> None:
        """Start it at its port, any that is free the first time, and wait until it is ready."""
        script = [sys.executable, str(_REPOSITORY / "ApiServer.py"), "--model", str(self._model)]
        self._process = subprocess.Popen(
            [*script, "--port", str(self.port)], stdout=subprocess.PIPE, text=True
        )
        found = re.search(r":(\d+) ", self._process.stdout.readline())
        if not found:
            raise RuntimeError("the service did not start")
        self.port = int(found[1])
        while ask(self.port, "GET", "/readyz")[0] != _ANSWERED:
            time.sleep(0.2)

    @property
    def pid(self) -> int:
        """Of its process now."""
        return self._process.pid

    def end(self, *, kill: bool) -> None:
        """Stop it gracefully, or kill it."""
        (self._process.kill if kill else self._process.terminate)()
        self._process.wait()
        self._process.stdout.close()


@contextmanager
def running_service(model: Path) -> Iterator[Service]:
    """A service for the time of the block."""
    service = Service(model)
    try:
        yield service
    finally:
        service.end(kill=False)


def ask(
    port: int, method: str, address: str, *, body: bytes = b"", kind: str = ""
) -> tuple[int, dict]:
    """Status and JSON of one request."""
    connection = HTTPConnection("localhost", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(method, address, body=body, headers={"Content-Type": kind})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def as_form(paths: list[Path]) -> bytes:
    """A multipart body with these files."""
    parts = []
    for path in paths:
        parts.append(
            f"--{_BOUNDARY}\r\nContent-Disposition: form-data; "
            f'name="files"; filename="{path.name}"\r\n\r\n'.encode()
        )
        parts.append(path.read_bytes() + b"\r\n")
    return b"".join([*parts, f"--{_BOUNDARY}--\r\n".encode()])


def send(port: int, paths: list[Path]) -> tuple[int, dict]:
    """Ask for the verdicts of these files in one request."""
    kind = f"multipart/form-data; boundary={_BOUNDARY}"
    return ask(port, "POST", "/v1/images", body=as_form(paths), kind=kind)


def images_a_second_by_script(model: Path, folder: Path) -> float:
    """ImageScoring.py from the first image to the last, as its summary states it."""
    output = folder.parent / "scores.csv"
    script = [sys.executable, str(_REPOSITORY / "ImageScoring.py"), str(folder)]
    result = subprocess.run(
        [*script, "--model", str(model), "--output", str(output), "--overwrite"],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(re.search(r"([\d,.]+) a second", result.stdout)[1].replace(",", ""))


def images_a_second_by_service(model: Path, paths: list[Path]) -> tuple[float, list[float]]:
    """Throughput with a handful of clients, and the seconds that each request took."""
    requests = [
        paths[start : start + _IMAGES_IN_REQUEST]
        for start in range(0, len(paths), _IMAGES_IN_REQUEST)
    ]

    def timed(request: list[Path]) -> float:
        started = time.perf_counter()
        status, _ = send(service.port, request)
        assert status == _ANSWERED, status
        return time.perf_counter() - started

    with running_service(model) as service, ThreadPoolExecutor(_CLIENTS) as clients:
        # The first batch compiles the form for batches, as the script does before it counts.
        list(clients.map(timed, requests[:2]))
        started = time.perf_counter()
        seconds = list(clients.map(timed, requests))
        return len(paths) / (time.perf_counter() - started), seconds


def overload(
    model: Path, paths: list[Path], *, rate: float, seconds: float, kills: int
) -> tuple[Counter[str], list[float]]:
    """Single images at this rate: what became of each, and the seconds of those answered.

    Args:
        model: The `.h5` file.
        paths: The images, again and again.
        rate: Requests a second.
        seconds: How long.
        kills: So often the service is killed and started again; clients send again what fails.
    """
    expected = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    outcomes: Counter[str] = Counter()
    waits: list[float] = []
    labels: dict[Path, set[str]] = {path: set() for path in paths}
    lock = threading.Lock()

    def one(path: Path) -> None:
        started = time.perf_counter()
        try:
            status, document, failures = _send_until_answered(service, path, patient=kills > 0)
        except OSError as error:
            outcome, failures = f"lost ({type(error).__name__})", 0
        else:
            image = document.get("images", [{}])[0]
            right = (image.get("path"), image.get("sha256")) == (path.name, expected[path])
            outcome = {
                _ANSWERED: "answered" if right else "mixed up",
                _TOO_BUSY: "refused (429)",
            }.get(status, f"status {status}")
        with lock:
            outcomes[outcome] += 1
            outcomes["failures after which one was sent again"] += failures
            if outcome == "answered":
                waits.append(time.perf_counter() - started)
                labels[path].add(image["label"])

    with running_service(model) as service, ThreadPoolExecutor(256) as clients:
        began = time.perf_counter()
        count = int(rate * seconds)
        due = {count * number // (kills + 1) for number in range(1, kills + 1)}
        restarted: Future[None] = Future()
        restarted.set_result(None)
        for index in range(count):
            # At a steady rate, whether or not earlier ones were answered.
            time.sleep(max(0.0, began + index / rate - time.perf_counter()))
            if index in due:
                # One that is slow to start is not killed before it has.
                restarted.result()
                service.end(kill=True)
                restarted = clients.submit(service.start)
            clients.submit(one, paths[index % len(paths)])
    outcomes["sent"] = count
    outcomes["images of two labels"] = sum(len(found) > 1 for found in labels.values())
    return outcomes, waits


def _send_until_answered(service: Service, path: Path, *, patient: bool) -> tuple[int, dict, int]:
    """Status, JSON, and after how many failures; one that is not patient sends once."""
    failures = 0
    while True:
        try:
            status, document = send(service.port, [path])
            if status != _NOT_READY or not patient:
                return status, document, failures
        except OSError:
            if not patient:
                raise
        except HTTPException as error:
            if not patient:
                raise ConnectionError(str(error)) from error
        failures += 1
        if failures == _MOST_FAILURES:
            raise TimeoutError("the service did not come back")
        time.sleep(0.2)


def parse_args(argv=None):
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, help="run folder or .h5 file")
    parser.add_argument("--images", type=whole_number(16), default=192, help="JPEG files to make")
    parser.add_argument("--repeats", type=whole_number(1), default=3, help="turns of each")
    parser.add_argument(
        "--seconds", type=whole_number(0), default=600, help="of requests at twice the capacity"
    )
    parser.add_argument(
        "--kills", type=whole_number(0), default=0, help="kill the service so often meanwhile"
    )
    return parser.parse_args(argv)


@command
def main(argv=None):
    args = parse_args(argv)
    model = find_model(args.model)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "images"
        folder.mkdir()
        paths = make_images(folder, args.images)
        by_script, by_service, seconds = [], [], []
        for _ in range(args.repeats):
            by_script.append(images_a_second_by_script(model, folder))
            rate, waits = images_a_second_by_service(model, paths)
            by_service.append(rate)
            seconds += waits
        ours, theirs = statistics.median(by_service), statistics.median(by_script)
        rows = [
            ["ImageScoring.py", f"{theirs:.1f}", ""],
            ["ApiServer.py", f"{ours:.1f}", f"{np.percentile(seconds, 95):.2f}"],
            ["ratio", f"{ours / theirs:.2f}", ""],
        ]
        title = f"{len(paths)} images of 512 × 512, {os.cpu_count()} cores"
        header = ["", "images a second", f"p95 of {_IMAGES_IN_REQUEST} images, s"]
        print(format_table(header, rows, title=title), flush=True)
        if args.seconds:
            outcomes, waits = overload(
                model, paths, rate=2 * ours, seconds=args.seconds, kills=args.kills
            )
            p95 = f"{np.percentile(waits, 95):.2f}" if waits else "none"
            table = [[name, count] for name, count in outcomes.items()]
            title = f"{args.seconds} s at {2 * ours:.1f} requests a second; p95 {p95} s"
            print(format_table(["requests", "count"], table, title=title))
            bad = outcomes["sent"] - outcomes["answered"] - outcomes["refused (429)"]
            return 1 if bad or outcomes["images of two labels"] else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
