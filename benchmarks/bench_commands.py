"""Measure whole commands: the demo, a training with --minutes, and the tests.

Each row is one command in a process of its own, as this machine is; --avx2 adds rows limited to
AVX2, with TensorFlow's kernels as this project chooses them and (demo and training) as TensorFlow
chooses them there. The ratio is to the first row of the same command. "longest silence" is the
longest time without a line of output.

Example:
    python benchmarks/bench_commands.py --demo --minutes 3 --avx2
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from real_vs_ai.core.cli import command, make_parser  # noqa: E402
from real_vs_ai.core.config import PACKAGED_RELEASED_MODEL_DIR  # noqa: E402
from real_vs_ai.core.reporting import format_table  # noqa: E402
from real_vs_ai.models.runs import read_history  # noqa: E402

_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
_CPUS = {
    "as it is": {},
    "AVX2": _AVX2,
    "AVX2, TensorFlow's own choice": {**_AVX2, "TF_ENABLE_ONEDNN_OPTS": "0"},
}
_FINE_TUNING = (
    *("--weights", str(PACKAGED_RELEASED_MODEL_DIR / "model.h5"), "--image-size", "32"),
    *("--batch-size", "64", "--epochs", "100", "--set", "patience=99", "--augmentation", "light"),
    *("--set", "frozen_epochs=0", "early_stopping=99"),
)


def measure(arguments: list[str], *, folder: Path, environment: dict[str, str]) -> list[str]:
    """Run a command, and return its seconds and its longest silence in seconds.

    Raises:
        RuntimeError: It failed.
    """
    started = last = time.perf_counter()
    silence, lines = 0.0, []
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            now = time.perf_counter()
            silence, last = max(silence, now - last), now
            lines.append(line)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed: {''.join(lines[-5:])}")
    return [f"{time.perf_counter() - started:.0f}", f"{silence:.0f}"]


def measure_demo(folder: Path, environment: dict[str, str]) -> list[str]:
    """Seconds, longest silence, and the accuracy on the demo's test images."""
    found = measure(
        [str(REPOSITORY / "RunPipeline.py"), "--demo"], folder=folder, environment=environment
    )
    newest = max((folder / "models").glob("demo-*"))
    accuracy = json.loads((newest / "metrics.json").read_text())["test"]["accuracy"]
    return [*found, f"accuracy {accuracy['value']:.3f}"]


def measure_minutes(folder: Path, environment: dict[str, str], *, minutes: float) -> list[str]:
    """Seconds, longest silence, and what was planned, of a fine-tuning on the demo's images."""
    name = f"minutes-{len(list((folder / 'models').iterdir()))}"
    arguments = ["--data", "data/demo", "--run-name", name, "--minutes", f"{minutes:g}"]
    found = measure(
        [str(REPOSITORY / "ModelTraining.py"), *arguments, *_FINE_TUNING],
        folder=folder,
        environment=environment,
    )
    steps = sum(map(int, read_history(folder / "models" / name / "history.csv")["steps"]))
    return [*found, f"planned {60 * minutes:.0f} s, {steps} steps"]


@command
def main(argv: list[str] | None = None) -> int:
    """Measure every command that was asked for and print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--demo", action="store_true", help="measure RunPipeline.py --demo")
    parser.add_argument("--minutes", type=float, help="measure a training with this limit")
    parser.add_argument("--tests", action="store_true", help="measure the tests")
    parser.add_argument("--avx2", action="store_true", help="measure an AVX2 machine too")
    args = parser.parse_args(argv)
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        tests = ["-m", "pytest", "-q", "-n", "2", "--dist", "worksteal"]
        commands = {
            "the demo": args.demo and (lambda cpu: measure_demo(folder, cpu)),
            f"--minutes {args.minutes:g}" if args.minutes else "": args.minutes
            and (lambda cpu: measure_minutes(folder, cpu, minutes=args.minutes)),
            "the tests": args.tests
            and (lambda cpu: [*measure(tests, folder=REPOSITORY, environment=cpu), ""]),
        }
        if args.minutes and not args.demo:
            measure_demo(folder, {})
        for name, run in commands.items():
            cpus = list(_CPUS.items())[: 3 if args.avx2 else 1]
            first = None
            for cpu, environment in cpus if run else ():
                if run is commands["the tests"] and "own" in cpu:
                    continue
                seconds, silence, note = run(environment)
                first = first or float(seconds)
                rows.append([cpu, name, seconds, f"{float(seconds) / first:.2f}", silence, note])
                print(f"{cpu}, {name}: {seconds} s, {note}", flush=True)
    header = ["CPU", "command", "seconds", "ratio", "longest silence, s", "note"]
    print(format_table(header, rows, title="Whole commands"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
