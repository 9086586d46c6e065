"""Time and memory of splitting and merging as the number of files grows.

    python benchmarks/bench_growth.py 10000 100000 --work-dir /tmp/growth

Makes so many tiny files of different contents, runs DataSplitD1.py (headers only) and DataMerger.py
on them, and prints seconds, processor seconds and the largest process of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from real_vs_ai.reporting import format_table  # noqa: E402

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
    headers = ["files", "stage", "seconds", "CPU s", "µs a file", "peak MiB"]
    rows = []
    for count in args.counts:
        folder = args.work_dir / str(count)
        shutil.rmtree(folder, ignore_errors=True)
        make_files(folder / "data" / "raw" / "tiny", count)
        for script, *options in (
            ("DataSplitD1", "--no-verify", "--no-confounds"), ("DataMerger", "--no-confounds")
        ):  # fmt: skip
            seconds, cpu, peak = measure(folder, script, *options)
            rows.append([
                count, script, f"{seconds:.1f}", f"{cpu:.1f}", round(cpu / count * 1e6), round(peak)
            ])  # fmt: skip
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


def measure(folder: Path, script: str, *options: str) -> tuple[float, float, float]:
    """(seconds, processor seconds, MiB of the largest process) of a script run in `folder`."""
    probe = (
        "import resource, runpy, sys, json\n"
        f"sys.argv = {[script, *options]!r}\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "try:\n"
        f"    runpy.run_path({str(ROOT / script) + '.py'!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print('PEAK', peak)\n"
    )
    before, started = os.times(), time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", probe], cwd=folder, check=True, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - started, os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, cpu, int(result.stdout.rsplit("PEAK", 1)[1]) / unit


if __name__ == "__main__":
    sys.exit(main())
