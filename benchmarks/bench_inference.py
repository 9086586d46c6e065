"""Inference compared with what people do otherwise: ResNet101 on this machine's CPU, in one run.

Each contender runs in a process of its own on the same JPEG files, which are made for the run from
scikit-image's photographs. The table gives images a second, waiting times, memory, and the ratios,
in the precision that this machine chooses. Keras computes in float32. Each number is the median of
its turns.

Example:
    python benchmarks/bench_inference.py --images 192 --repeats 3
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from real_vs_ai.core.cli import command, make_parser  # noqa: E402
from real_vs_ai.core.reporting import format_table  # noqa: E402

_KERAS_BATCH = 32
_SINGLE_REPEATS = 30


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG crops of 512 × 512 pixels."""
    import numpy as np
    from PIL import Image
    from skimage import data

    photographs = [data.astronaut(), data.coffee(), data.chelsea(), data.rocket()]
    generator = np.random.default_rng(0)
    paths = []
    for index in range(count):
        photograph = Image.fromarray(photographs[index % len(photographs)])
        left, top = generator.integers(0, 100, 2)
        box = (int(left), int(top), photograph.width - 20, photograph.height - 20)
        path = folder / f"{index:05}.jpg"
        photograph.resize((512, 512), box=box).save(path, quality=92)
        paths.append(path)
    return paths


def make_model(path: Path, *, image_size: int) -> None:
    """ResNet101 with random weights: what it answers does not matter here."""
    import keras

    from real_vs_ai.models.keras_models import save_model
    from real_vs_ai.models.model_file import ModelMetadata

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((image_size, image_size, 3))
    scaled = layers.Rescaling(1.0, offset=[-123.68, -116.779, -103.939])(inputs)
    backbone = keras.applications.ResNet101(include_top=False, weights=None, input_tensor=scaled)
    x = layers.GlobalAveragePooling2D()(backbone.output)
    x = layers.Dense(256, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    metadata = ModelMetadata(class_names=("Fake", "Real"), image_size=image_size)
    save_model(model, path, metadata=metadata)


def ours_to_csv(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """Files → CSV by ImageScoring's own code, from the first image to the last."""
    from real_vs_ai.serving.scoring_job import ScoringOptions, run_scoring

    options = ScoringOptions(
        model=model, engine="openvino", cluster=None, precision=None, workers=os.cpu_count() or 1
    )
    summary = run_scoring(
        [str(folder)],
        options=options,
        output=folder.parent / "scores.csv",
        resume=False,
        overwrite=True,
    )
    return {"images_per_second": sum(summary.counts.values()) / summary.seconds}


def keras_loop(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """`load_img` and `model.predict`, one image after the other."""
    import keras
    import numpy as np

    network = keras.models.load_model(model, compile=False)
    paths = sorted(folder.iterdir())[:16]

    def judge(path: Path) -> None:
        image = keras.utils.load_img(path, target_size=(image_size, image_size))
        network.predict(np.expand_dims(keras.utils.img_to_array(image), 0), verbose=0)

    judge(paths[0])
    started = time.perf_counter()
    for path in paths:
        judge(path)
    return {"images_per_second": len(paths) / (time.perf_counter() - started)}


def keras_batches(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """Keras `predict` on batches of 32 from tf.data, decoding in parallel."""
    import keras
    import tensorflow as tf

    network = keras.models.load_model(model, compile=False)

    def read(path):
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(image, (image_size, image_size))

    paths = [str(path) for path in sorted(folder.iterdir())]
    data = tf.data.Dataset.from_tensor_slices(paths).map(read, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(_KERAS_BATCH).prefetch(tf.data.AUTOTUNE)
    network.predict(data.take(1), verbose=0)
    started = time.perf_counter()
    network.predict(data, verbose=0)
    return {"images_per_second": len(paths) / (time.perf_counter() - started)}


def ours_single(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """First verdict of a fresh process, then the warm wait for one image, and memory."""
    from real_vs_ai.serving.detector import Detector

    path = sorted(folder.iterdir())[0]
    detector = Detector.open(model, engine="openvino", precision=None)
    detector.predict(path)
    first = _seconds_since_start()
    return {
        "first": first,
        "p50": _p50(lambda: detector.predict(path)),
        "memory": _resident_mib(),
        "tensorflow": float("tensorflow" in sys.modules),
    }


def keras_single(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """The same with Keras `predict`."""
    import keras
    import numpy as np

    path = sorted(folder.iterdir())[0]
    network = keras.models.load_model(model, compile=False)

    def judge() -> None:
        image = keras.utils.load_img(path, target_size=(image_size, image_size))
        network.predict(np.expand_dims(keras.utils.img_to_array(image), 0), verbose=0)

    judge()
    first = _seconds_since_start()
    return {"first": first, "p50": _p50(judge), "memory": _resident_mib()}


def openvino_tool(model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """OpenVINO's benchmark_app on the same model in the same precision and batch."""
    import openvino as ov

    from real_vs_ai.models.openvino_form import read_form
    from real_vs_ai.serving.openvino_engine import OpenVINOEngine, best_precision

    batch = OpenVINOEngine(model, image_size=image_size, precision=None).batch_size
    ov.save_model(read_form(model, layer=None), folder / "model.xml", compress_to_fp16=False)
    done = subprocess.run(
        [
            Path(sys.executable).parent / "benchmark_app",
            "-m",
            folder / "model.xml",
            "-d",
            "CPU",
            "-hint",
            "throughput",
            "-t",
            "20",
            "-infer_precision",
            best_precision(ov.Core()),
            "-data_shape",
            f"[{batch},{image_size},{image_size},3]",
            "-shape",
            f"[{batch},{image_size},{image_size},3]",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if "Throughput" in line]
    return {"images_per_second": float(lines[-1].split()[-2])}


CONTENDERS: dict[str, Callable[[Path, Path, int], dict[str, float]]] = {
    function.__name__: function
    for function in (
        *(keras_loop, keras_batches, keras_single),
        *(ours_to_csv, openvino_tool, ours_single),
    )
}


def measure(name: str, model: Path, folder: Path, image_size: int) -> dict[str, float]:
    """One contender in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "BENCH_STARTED": str(time.time())}
    arguments = ["--contender", name, str(model), str(folder), str(image_size)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_contender(name: str, model: str, folder: str, image_size: str) -> dict[str, float]:
    """The other end of `measure`."""
    return CONTENDERS[name](Path(model), Path(folder), int(image_size))


def take_turns(
    model: Path, folder: Path, *, image_size: int, repeats: int
) -> dict[str, dict[str, float]]:
    """The medians of each contender's numbers; all have a turn before any has the next."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(repeats):
        for name in CONTENDERS:
            found[name].append(measure(name, model, folder, image_size))
    return {
        name: {key: statistics.median(one[key] for one in results) for key in results[0]}
        for name, results in found.items()
    }


def report(results: dict[str, dict[str, float]]) -> str:
    """The table of ratios; above 1 means that this project does better."""
    rate = {name: found.get("images_per_second", 0.0) for name, found in results.items()}
    ours, theirs = results["ours_single"], results["keras_single"]
    rows = [
        [what, f"{mine:.2f}", f"{other:.2f}", f"{ratio:.2f}"]
        for what, mine, other, ratio in (
            _row(
                "files → CSV, images/s, compared with a loop of load_img and predict",
                rate["ours_to_csv"],
                rate["keras_loop"],
            ),
            _row(
                "the same, compared with Keras predict on batches of 32 from tf.data",
                rate["ours_to_csv"],
                rate["keras_batches"],
            ),
            _row(
                "the same, compared with OpenVINO's benchmark_app (no decoding)",
                rate["ours_to_csv"],
                rate["openvino_tool"],
            ),
            _row("one image, warm, p50 in ms", 1e3 * ours["p50"], 1e3 * theirs["p50"], True),
            _row("fresh process to first verdict, s", ours["first"], theirs["first"], True),
            _row("resident memory, MiB", ours["memory"], theirs["memory"], True),
        )
    ]
    title = "ResNet101; Keras in float32"
    return format_table(["", "ours", "theirs", "ratio"], rows, title=title)


def _row(
    what: str, ours: float, theirs: float, less_is_better: bool = False
) -> tuple[str, float, float, float]:
    return what, ours, theirs, theirs / ours if less_is_better else ours / theirs


def _p50(work: Callable[[], None]) -> float:
    times = []
    for _ in range(_SINGLE_REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _seconds_since_start() -> float:
    return time.time() - float(os.environ["BENCH_STARTED"])


def _resident_mib() -> float:
    import psutil

    return psutil.Process().memory_info().rss / 2**20


@command
def main(argv: list[str] | None = None) -> int:
    """Run every contender in turn and print the tables."""
    parser = make_parser(__doc__)
    add = parser.add_argument
    add("--images", type=int, default=192, help="files to score")
    add("--image-size", type=int, default=224, help="the network's input, pixels")
    add("--repeats", type=int, default=1, help="turns of each contender; their median is given")
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    images, model = folder / "images", folder / "model.h5"
    try:
        images.mkdir()
        make_images(images, args.images)
        make_model(model, image_size=args.image_size)
        results = take_turns(model, images, image_size=args.image_size, repeats=args.repeats)
        print(report(results))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contender"]:
        print(json.dumps(run_contender(*sys.argv[2:])))
        sys.exit(0)
    sys.exit(main())
