"""Time and memory of splitting and merging as the number of files grows.

    python benchmarks/bench_growth.py 10000 100000 --work-dir /tmp/growth

Makes so many tiny files of different contents, runs DataSplitD1.py and DataMerger.py
on them, and prints seconds, processor seconds, and the most memory that the main process, and all
processes together, had at one time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from real_vs_ai.core.reporting import format_table  # noqa: E402

_FILES_PER_FOLDER = 10_000


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("counts", nargs="+", type=int, help="how many files")
    parser.add_argument("--work-dir", type=Path, default=Path("bench-growth"))
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    headers = ["files", "stage", "seconds", "CPU s", "µs a file", "main MiB", "all MiB"]
    rows = []
    for count in args.counts:
        folder = args.work_dir / str(count)
        shutil.rmtree(folder, ignore_errors=True)
        make_files(folder / "data" / "raw" / "tiny", count)
        for script in ("DataSplitD1", "DataMerger"):
            seconds, cpu, main_peak, all_peak = measure(folder, script)
            rows.append(
                [
                    count,
                    script,
                    f"{seconds:.1f}",
                    f"{cpu:.1f}",
                    round(cpu / count * 1e6),
                    round(main_peak),
                    round(all_peak),
                ]
            )
            print(format_table(headers, rows), flush=True)
        shutil.rmtree(folder)
    return 0


def make_files(folder: Path, count: int) -> None:
    """Tiny JPEGs: one picture, each with its number after its end, which decoders pass over."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(buffer, "JPEG")
    for label in ("Fake", "Real"):
        for i in range(count // 2):
            if i % _FILES_PER_FOLDER == 0:
                inner = folder / label / str(i // _FILES_PER_FOLDER)
                inner.mkdir(parents=True)
            (inner / f"{i}.jpg").write_bytes(buffer.getvalue() + f"{label}{i}".encode())


def measure(folder: Path, script: str) -> tuple[float, float, float, float]:
    """(seconds, processor seconds, MiB of the main process, MiB of all) of a script in `folder`."""
    before, started = os.times(), time.perf_counter()
    process = psutil.Popen(
        [sys.executable, str(ROOT / f"{script}.py")], cwd=folder, stdout=subprocess.DEVNULL
    )
    peaks = [0.0, 0.0]
    watcher = threading.Thread(target=watch_memory, args=(process, peaks))
    watcher.start()
    if process.wait():
        raise RuntimeError(f"{script}.py failed.")
    watcher.join()
    seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return seconds, cpu, peaks[0], peaks[1]


def watch_memory(process: psutil.Popen, peaks: list[float]) -> None:
    """Keep the peaks of the main process and of all, in MiB, while the process runs.

    Pages that processes share are counted for each of them.
    """
    while process.poll() is None:
        try:
            main = process.memory_info().rss / 2**20
            workers = sum(child.memory_info().rss for child in process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
        peaks[:] = max(peaks[0], main), max(peaks[1], main + workers / 2**20)
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
