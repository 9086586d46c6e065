"""Scoring files: images a second for workers and batch sizes, and memory over many files.

Every setting runs in a process of its own on the same JPEG files. The second table scores a folder
of many small files with a small network, so that what grows with their number would show. The third
takes the released models, from the start of the process to the table: thumbnails beside a Keras
loop over single images, and thumbnails and photographs in one folder beside each kind alone.

Examples:
    python -m benchmarks.bench_scoring --images 96
    python -m benchmarks.bench_scoring --images 0 --files 100000
    python -m benchmarks.bench_scoring --images 0 --thumbnails 2000 --loop 300 --mixed 400
    python -m benchmarks.bench_scoring --images 0 --mixed 400 --thumbnails-from DIR
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.bench_inference import make_images, make_model
from benchmarks.common import make_photograph
from real_vs_ai.core.cli import command, make_parser
from real_vs_ai.core.reporting import format_table
from real_vs_ai.models.runs import find_models

_WORKERS = (1, 2, 4)
_BATCHES = (1, 2, 4, 8, 16)
_SMALL = 32
_SECONDS_BETWEEN_SAMPLES = 0.2
_PARTS = 5


def make_small_network(path: Path) -> None:
    """A network that takes next to no time, so that files are what is measured."""
    import keras

    from real_vs_ai.models.keras_models import save_model
    from real_vs_ai.models.model_file import ModelMetadata

    inputs = keras.Input((_SMALL, _SMALL, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3, strides=4)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    metadata = ModelMetadata(class_names=("Fake", "Real"), image_size=_SMALL)
    save_model(model, path, metadata=metadata)


def score(model: Path, folder: Path, *, workers: int, batch: int | None) -> dict[str, float]:
    """Files → CSV in this process, in batches of another size than the engine's own if given."""
    from real_vs_ai.serving import openvino_engine
    from real_vs_ai.serving.scoring_job import ScoringOptions, run_scoring

    if batch is not None:
        # The engine derives its batch from these two; its image is of any size here.
        openvino_engine._PIXELS_IN_BATCH = 2**40
        openvino_engine._LARGEST_BATCH = batch
    options = ScoringOptions(
        model=model, engine="openvino", cluster=None, precision=None, workers=workers
    )
    summary = run_scoring(
        [str(folder)],
        options=options,
        output=model.with_name(f"scores-{os.getpid()}.csv"),
        resume=False,
        overwrite=True,
    )
    return {"images_per_second": sum(summary.counts.values()) / summary.seconds}


def score_and_watch(model: Path, folder: Path) -> dict[str, object]:
    """The same, with the resident memory in MiB in each fifth of the time."""
    import psutil

    samples: list[float] = []
    done = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not done.wait(_SECONDS_BETWEEN_SAMPLES):
            family = [process, *process.children(recursive=True)]
            samples.append(sum(one.memory_info().rss for one in family) / 2**20)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        result = score(model, folder, workers=os.cpu_count() or 1, batch=None)
    finally:
        done.set()
        watcher.join()
    part = max(1, len(samples) // _PARTS)
    return {**result, "memory": [max(samples[i : i + part]) for i in range(0, len(samples), part)]}


def _measure(*arguments: object) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_scoring", "--contender", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _compare_settings(folder: Path, *, images: int, image_size: int, repeats: int) -> str:
    (folder / "images").mkdir()
    make_images(folder / "images", images)
    model = folder / "model.h5"
    make_model(model, image_size=image_size)
    rows = []
    for batch in _BATCHES:
        # The first use of a batch size compiles it; what is measured is every later one.
        _measure("score", model, folder / "images", _WORKERS[0], batch)
        rates = []
        for workers in _WORKERS:
            turns = [
                _measure("score", model, folder / "images", workers, batch)["images_per_second"]
                for _ in range(repeats)
            ]
            rates.append(f"{statistics.median(turns):.1f}")
        rows.append([batch, *rates])
    return format_table(
        ["images in a batch", *(f"{workers} decoding" for workers in _WORKERS)],
        rows,
        title=f"Images a second, ResNet101 at {image_size} pixels, {images} files of 512 × 512",
    )


def _watch_memory(folder: Path, *, files: int) -> str:
    (folder / "few").mkdir()
    sample = make_images(folder / "few", 200)
    many = folder / "many"
    for index in range(files):
        # Links: as many names as asked for, on a few files' disk space.
        part = many / f"{index // 1000:04}"
        if index % 1000 == 0:
            part.mkdir(parents=True)
        os.link(sample[index % len(sample)], part / f"{index:07}.jpg")
    model = folder / "small.h5"
    make_small_network(model)
    _measure("score", model, folder / "few", 1, 1)
    found = _measure("watch", model, many)
    memory = found["memory"][:_PARTS]
    return format_table(
        ["part of the time", "resident memory, MiB"],
        [[f"{100 * (i + 1) // _PARTS} %", f"{value:.0f}"] for i, value in enumerate(memory)],
        title=f"{files:,} files, {found['images_per_second']:.0f} a second",
    )


# What many write first: the file read, resized and judged, one after another.
_KERAS_LOOP = """
import sys, time
from pathlib import Path
from keras.utils import img_to_array, load_img
from real_vs_ai.models.keras_models import load_model

model = load_model(Path(sys.argv[1]))
files = sorted(Path(sys.argv[2]).iterdir())[:int(sys.argv[3])]
def judge(path):
    return model.predict(img_to_array(load_img(path, target_size=(32, 32)))[None], verbose=0)
judge(files[0])
began = time.perf_counter()
for path in files:
    judge(path)
print((time.perf_counter() - began) / len(files))
"""


def _seconds(*arguments: object) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True)
    return time.perf_counter() - started


def _score_seconds(folder: Path, *images: Path) -> float:
    output = folder / "scores.csv"
    return _seconds("ImageScoring.py", *images, "--output", output, "--overwrite")


def _loop_seconds(folder: Path, *, count: int, total: int) -> float:
    """Seconds that a Keras loop takes for all thumbnails, from its start and some of them."""
    script = folder / "loop.py"
    script.write_text(_KERAS_LOOP)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, script, find_models(None)[0], folder / "thumbnails", str(count)],
        env={**os.environ, "PYTHONPATH": ".", "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=True,
    )
    each = float(done.stdout.splitlines()[-1])
    return time.perf_counter() - started + (total - count) * each


def _take_thumbnails(folder: Path, count: int, source: Path | None) -> Path:
    target = folder / "thumbnails"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    given = sorted(source.rglob("*.jpg"))[:count] if source else []
    for index in range(count):
        path = target / f"{index:05}.jpg"
        if given:
            shutil.copy(given[index % len(given)], path)
        else:
            path.write_bytes(make_photograph(index, width=32, height=32))
    return target


def _take_photographs(folder: Path, count: int, source: Path | None) -> Path:
    """Photographs of 1 to 2 megapixels."""
    target = folder / "photographs"
    target.mkdir()
    given = sorted(source.rglob("*.jpg")) if source else []
    for index in range(count):
        path, width = target / f"{index:05}.jpg", 1200 + index % 5 * 100
        if given:
            with Image.open(given[index % len(given)]) as image:
                turned = image.convert("RGB").rotate(90 * (index // len(given)))
                turned.resize((width, width * 3 // 4)).save(path, quality=92)
        else:
            path.write_bytes(make_photograph(index, width=width, height=width * 3 // 4))
    return target


def _compare_with_loop(folder: Path, args: Any) -> str:
    images = _take_thumbnails(folder, args.thumbnails, args.thumbnails_from)
    _score_seconds(folder, images)
    rows = []
    for _ in range(args.repeats):
        loop = _loop_seconds(folder, count=args.loop, total=args.thumbnails)
        here = _score_seconds(folder, images)
        rows.append([f"{loop:.0f} s", f"{here:.1f} s", f"{loop / here:.1f}"])
    title = f"{args.thumbnails:,} thumbnails with their start; the loop's time from {args.loop}"
    return format_table(["Keras loop", "ImageScoring.py", "times faster"], rows, title=title)


def _compare_mixed(folder: Path, args: Any) -> str:
    half = args.mixed // 2
    small = _take_thumbnails(folder, half, args.thumbnails_from)
    large = _take_photographs(folder, half, args.photographs_from)
    mixed = folder / "mixed"
    mixed.mkdir()
    for kind in (small, large):
        for path in kind.iterdir():
            os.link(path, mixed / f"{path.stem}-{kind.name}.jpg")
    _score_seconds(folder, mixed)
    rows = []
    for _ in range(args.repeats):
        alone = _score_seconds(folder, small), _score_seconds(folder, large)
        together = _score_seconds(folder, mixed)
        seconds = (f"{value:.1f} s" for value in (*alone, together))
        rows.append([*seconds, f"{together / sum(alone):.2f}"])
    title = f"{half} thumbnails and {half} photographs of 1 to 2 megapixels, each with its start"
    header = ["thumbnails alone", "photographs alone", "mixed", "mixed to both alone"]
    return format_table(header, rows, title=title)


@command
def main(argv: list[str] | None = None) -> int:
    """Run both measurements and print their tables."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=96, help="files for each setting; 0 leaves this out")
    add("--image-size", type=int, default=224, help="the network's input, pixels")
    add("--repeats", type=int, default=1, help="turns of each setting; their median is given")
    add("--files", type=int, default=0, help="files whose scoring is watched; 0 leaves this out")
    add("--thumbnails", type=int, default=0, help="thumbnails to score beside a Keras loop")
    add("--loop", type=int, default=300, help="how many of them the loop judges")
    add("--mixed", type=int, default=0, help="images of both kinds, half of each")
    add("--thumbnails-from", type=Path, help="folder of real thumbnails; none: made ones")
    add("--photographs-from", type=Path, help="folder of real photographs; none: made ones")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        if args.images:
            print(
                _compare_settings(
                    folder, images=args.images, image_size=args.image_size, repeats=args.repeats
                )
            )
        if args.thumbnails:
            print(_compare_with_loop(folder, args))
        if args.mixed:
            print(_compare_mixed(folder, args))
        if args.files:
            started = time.perf_counter()
            print(_watch_memory(folder, files=args.files))
            print(f"{time.perf_counter() - started:.0f} s with the making of the files")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contender"]:
        kind, model_path, images_dir, *settings = sys.argv[2:]
        if kind == "score":
            chosen_workers, chosen_batch = map(int, settings)
            answer = score(
                Path(model_path), Path(images_dir), workers=chosen_workers, batch=chosen_batch
            )
        else:
            answer = score_and_watch(Path(model_path), Path(images_dir))
        print(json.dumps(answer))
        sys.exit(0)
    sys.exit(main())
