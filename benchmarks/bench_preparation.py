"""Data preparation compared with what a user would do otherwise: ratios, measured in one run.

    python benchmarks/bench_preparation.py ../shared/data/cifake.zip --work-dir /tmp/bench
    python benchmarks/bench_preparation.py ARCHIVE --only unzip split

The archive needs train/ and test/ folders. Every stage is timed as often as --repeats says, ours
and the other in turn; the medians are compared. Processor seconds are given as well: other work
on the machine disturbs those less. Augmentation makes five copies of every image, ours with the
whole script's time, Keras without its imports; "libraries alone" is what OpenCV's calls and the
files take on all cores without anything around them. Writes preparation.csv in --work-dir.

Old outputs are moved away, and deleted at the end: ext4 makes files ten times more slowly for
minutes after many were deleted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import image_data_generator  # noqa: E402
from real_vs_ai.core.reporting import format_table  # noqa: E402

# Stage → (what it is compared with, the largest allowed ratio of times or the smallest of rates).
TARGETS = {
    "DataUnZipper": ("unzip -q", "at most 1.5 × its time"),
    "DataSplitD2": ("cp -r", "at most 2 × its time"),
    "DataMerger": ("cp -r", "at most 1 × its time"),
    "DataAugmentation, 32 px": ("ImageDataGenerator", "at least 20 × its images/s"),
    "DataAugmentation, 224 px": ("ImageDataGenerator", "at least 10 × its images/s"),
    "DataZipper": ("zip -0 -r", "at most 1.5 × its time"),
    "DataDeleter": ("rm -r", "at most 1.5 × its time"),
}
_HEADERS = ["stage", "compared with", "ours", "theirs", "ratio", "CPU ours", "CPU theirs", "target"]
_TRASH = Path("old")
# By size in pixels; each gets five copies.
_KERAS_IMAGES = {32: 600, 224: 200}
_OUR_IMAGES = {32: 80_000, 224: 12_000}
_COPIES = 5


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path)
    parser.add_argument("--work-dir", type=Path, default=Path("bench-preparation"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=("unzip", "split", "merge", "augment", "zip"))
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse_args(argv)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    archive = args.archive.resolve()
    os.chdir(args.work_dir)
    wanted = args.only or ["unzip", "split", "merge", "augment", "zip"]
    rows = []
    steps = {
        "unzip": lambda: bench_unzip(archive, repeats=args.repeats),
        "split": lambda: bench_split(repeats=args.repeats),
        "merge": lambda: bench_merge(repeats=args.repeats),
        "augment": lambda: bench_augment(repeats=args.repeats),
        "zip": lambda: bench_zip_and_delete(repeats=args.repeats),
    }
    for name, step in steps.items():
        if name in wanted:
            rows += step()
            print(format_table(_HEADERS, rows))
    with Path("preparation.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([_HEADERS, *rows])
    shutil.rmtree(_TRASH, ignore_errors=True)
    return 0


def run_script(name: str, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def run_tool(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


_numbers = itertools.count()


def remove(path: str) -> None:
    """Move a file or folder out of the way."""
    _TRASH.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        Path(path).rename(_TRASH / f"{os.getpid()}-{next(_numbers)}")


def compare(
    stage: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    clean: Callable[[], object],
    repeats: int,
) -> list:
    """Median seconds of both, run in turn so that the machine's mood meets both alike."""
    times: dict[str, list[tuple[float, float]]] = {"ours": [], "theirs": []}
    for _ in range(repeats):
        for who, work in (("theirs", theirs), ("ours", ours)):
            clean()
            # What the one before has left to write must not be waited for by the next.
            if hasattr(os, "sync"):
                os.sync()
            started, cpu_before = time.perf_counter(), os.times()
            work()
            seconds, cpu_after = time.perf_counter() - started, os.times()
            cpu = (cpu_after.children_user - cpu_before.children_user) + (
                cpu_after.children_system - cpu_before.children_system
            )
            times[who].append((seconds, cpu))
    middle = {who: statistics.median(t for t, _ in values) for who, values in times.items()}
    processor = {who: statistics.median(cpu for _, cpu in v) for who, v in times.items()}
    other, target = TARGETS[stage]
    return [
        stage,
        other,
        f"{middle['ours']:.2f} s",
        f"{middle['theirs']:.2f} s",
        f"{middle['ours'] / middle['theirs']:.2f}",
        f"{processor['ours']:.1f} s",
        f"{processor['theirs']:.1f} s",
        target,
    ]


def bench_unzip(archive: Path, *, repeats: int) -> list[list]:
    def clean():
        remove("unzipped")
        remove("data/raw")

    row = compare(
        "DataUnZipper",
        lambda: run_script("DataUnZipper", str(archive)),
        lambda: run_tool("unzip", "-q", str(archive), "-d", "unzipped"),
        clean=clean,
        repeats=repeats,
    )
    return [row]


def bench_split(*, repeats: int) -> list[list]:
    raw = str(next(path for path in Path("data/raw").iterdir() if not path.name.startswith(".")))

    def clean():
        remove("copied")
        remove("data/split")

    row = compare(
        "DataSplitD2",
        lambda: run_script("DataSplitD2"),
        lambda: run_tool("cp", "-r", raw, "copied"),
        clean=clean,
        repeats=repeats,
    )
    return [row]


def bench_merge(*, repeats: int) -> list[list]:
    def clean():
        remove("copied")
        for path in Path("data").iterdir():
            if path.name not in {"raw", "split"} and not path.name.startswith("."):
                remove(str(path))

    row = compare(
        "DataMerger",
        lambda: run_script("DataMerger"),
        lambda: run_tool("cp", "-r", "data/split", "copied"),
        clean=clean,
        repeats=repeats,
    )
    return [row]


def bench_augment(*, repeats: int) -> list[list]:
    rows = []
    for size in (32, 224):
        folder = Path(f"augment-{size}")
        make_square_images(folder, size=size, count=_OUR_IMAGES[size])
        rates: dict[str, list[float]] = {"ours": [], "theirs": [], "libraries": []}
        for _ in range(repeats):
            rates["theirs"].append(keras_rate(folder, size=size, images=_KERAS_IMAGES[size]))
            rates["ours"].append(our_rate(folder))
            rates["libraries"].append(library_rate(folder, size=size))
        ours, theirs, libraries = map(statistics.median, rates.values())
        stage = f"DataAugmentation, {size} px"
        other, target = TARGETS[stage]
        for name, rate in ((stage, ours), ("  libraries alone", libraries)):
            rows.append(
                [
                    name,
                    other,
                    f"{rate:,.0f}/s",
                    f"{theirs:,.0f}/s",
                    f"{rate / theirs:.1f}",
                    "",
                    "",
                    target if name == stage else "",
                ]
            )
    return rows


def make_square_images(data_dir: Path, *, size: int, count: int) -> None:
    """JPEGs of `size` × `size` pixels from images of the archive, under train/{Fake,Real}."""
    from PIL import Image

    if data_dir.exists():
        return
    for label in ("Fake", "Real"):
        folder = data_dir / "train" / label
        folder.mkdir(parents=True)
        for path in sorted(Path("data/train", label).iterdir())[: count // 2]:
            with Image.open(path) as image:
                if image.size == (size, size):
                    shutil.copyfile(path, folder / path.name)
                else:
                    image.resize((size, size)).save(folder / path.name, quality=90)


def our_rate(data_dir: Path) -> float:
    """Images per second of the whole script, its start included."""
    remove(f"{data_dir}/augmented_train")
    count = sum(1 for _ in (data_dir / "train").rglob("*.jpg")) * _COPIES
    started = time.perf_counter()
    run_script("DataAugmentation", f"--data-dir={data_dir}", f"--copies={_COPIES}")
    return count / (time.perf_counter() - started)


def keras_rate(data_dir: Path, *, size: int, images: int) -> float:
    """Images per second of the loop that hobby scripts have; its imports are not counted."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from keras.utils import img_to_array, load_img

    generator = image_data_generator()
    output = data_dir / "keras"
    remove(str(output))
    output.mkdir()
    paths = sorted((data_dir / "train").rglob("*.jpg"))[:images]
    started = time.perf_counter()
    for i, path in enumerate(paths):
        pixels = img_to_array(load_img(path, target_size=(size, size)))
        batches = generator.flow(
            pixels[None],
            batch_size=1,
            save_to_dir=str(output),
            save_prefix=f"aug{i}",
            save_format="jpeg",
        )
        for _ in range(_COPIES):
            next(batches)
    return len(paths) * _COPIES / (time.perf_counter() - started)


def library_rate(data_dir: Path, *, size: int) -> float:
    """Images per second of reading, decoding, warping, encoding and writing with nothing else."""
    from joblib import Parallel, cpu_count, delayed

    remove(f"{data_dir}/libraries")
    output = data_dir / "libraries"
    output.mkdir()
    paths = [str(p) for p in sorted((data_dir / "train").rglob("*.jpg"))[: 500_000 // size]]
    workers = cpu_count()
    with Parallel(n_jobs=workers) as parallel:
        # The processes' start is not counted.
        parallel(delayed(warp_files)(paths[:5], f"{output}/start{i}") for i in range(workers))
        started = time.perf_counter()
        parallel(delayed(warp_files)(paths[i::workers], f"{output}/{i}") for i in range(workers))
        return len(paths) * _COPIES / (time.perf_counter() - started)


def warp_files(paths: list[str], prefix: str) -> None:
    """What OpenCV and the file system do for the copies of some images."""
    import cv2
    import numpy as np

    cv2.setNumThreads(1)
    affine = np.array([[0.95, 0.2, 2.0], [-0.2, 0.95, 3.0]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    for i, path in enumerate(paths):
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR).astype(np.float32)
        for j in range(_COPIES):
            warped = cv2.warpAffine(
                pixels, affine, pixels.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            rounded = cv2.addWeighted(warped, 1, warped, 0, 0, dtype=cv2.CV_8U)
            cv2.imencode(".jpg", rounded)[1].tofile(f"{prefix}-{i}-{j}.jpg")


def bench_zip_and_delete(*, repeats: int) -> list[list]:
    def clean():
        for name in ("ours.zip", "theirs.zip"):
            remove(name)

    packed = compare(
        "DataZipper",
        lambda: run_script("DataZipper", "data/train", "--output", "ours.zip"),
        lambda: run_tool("zip", "-q", "-0", "-r", "theirs.zip", "data/train"),
        clean=clean,
        repeats=repeats,
    )
    clean()

    def copy_twice():
        for name in ("data/doomed", "doomed"):
            remove(name)
            shutil.copytree("data/train", name)

    deleted = compare(
        "DataDeleter",
        lambda: run_script("DataDeleter", "data/doomed", "--yes"),
        lambda: run_tool("rm", "-r", "doomed"),
        clean=copy_twice,
        repeats=repeats,
    )
    remove("doomed")
    remove("data/doomed")
    return [packed, deleted]


if __name__ == "__main__":
    sys.exit(main())
