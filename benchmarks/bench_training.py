"""How near training comes to the network's own speed, compared with ImageDataGenerator.

For each image size, in a process of its own and on the same ResNet101 and images:
  step       the training step on one batch that stays in memory: nothing can be faster
  fit        this project's whole `fit`: shuffling, augmentation, labels, callbacks
  keras      the step with batch normalisation and Adam as Keras writes them
  generator  that step in a `fit` fed by an ImageDataGenerator, in the way of earlier systems
and the process' peak memory after `fit`.

Example:
    python benchmarks/bench_training.py --sizes 32 64 128 224 --batch-sizes 64 32 16 8
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.common import image_data_generator
from real_vs_ai.models.keras_models import import_keras_quietly

# Steps before the clock starts: tracing, and the first allocations.
_WARM_UP = 2


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 224])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 32, 8])
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each way")
    parser.add_argument("--backbone", default="resnet101")
    parser.add_argument("--enlarge", type=int, default=1, choices=(1, 2, 3, 4))
    parser.add_argument("--precision", default="mixed_bfloat16")
    return parser.parse_args(argv)


def write_images(folder, *, count, size):
    """Class folders of JPEGs with shapes and some noise, as a user would have them."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("Fake", "Real"):
        (folder / name).mkdir(parents=True)
        for i in range(count // 2):
            shapes = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            picture = np.asarray(Image.fromarray(shapes).resize((size, size)), dtype=np.float32)
            pixels = picture + generator.normal(scale=4, size=picture.shape)
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            picture.save(folder / name / f"{i}.jpg", quality=90)


def make_clock():
    """A callback that notes the time of every step after the warm-up."""
    import keras

    class Clock(keras.callbacks.Callback):
        times = ()

        def on_train_batch_end(self, batch, logs=None):
            self.times += (time.perf_counter(),)

        def seconds_per_step(self):
            times = self.times[_WARM_UP:]
            return statistics.median(b - a for a, b in itertools.pairwise(times))

    return Clock()


def compiled_model(size, args, *, fused):
    """A network of the given input size, ready to train, with or without fused operations."""
    import keras

    from real_vs_ai.networks.model import build_model
    from real_vs_ai.training.command_line import parse_training_options
    from real_vs_ai.training.compilation import epoch_metrics, fuse_batch_norm, make_optimizer

    keras.config.set_dtype_policy(args.precision)
    arguments = ("--backbone", args.backbone, "--image-size", str(size), "--weights", "none")
    options = parse_training_options(
        [*arguments, "--set", f"enlarge={args.enlarge}"], description=""
    )
    model = build_model(options, class_names=("Fake", "Real"))
    if fused:
        fuse_batch_norm(model)
    model.compile(
        make_optimizer(1e-4, fused=fused),
        "categorical_crossentropy",
        metrics=epoch_metrics(("Fake", "Real")),
        jit_compile=False,
    )
    return model


def old_batches(folder, size, batch_size):
    """The batches that Keras' ImageDataGenerator makes."""
    images = image_data_generator().flow_from_directory(
        folder, target_size=(size, size), batch_size=batch_size
    )
    return _endless(images, batch_size)


def measure(size, batch_size, args):
    """Images a second of the four ways, and the peak memory of `fit` in MiB."""
    import_keras_quietly()
    import tensorflow as tf

    from real_vs_ai.dataset.decoded_images import decode_images
    from real_vs_ai.dataset.labelled_images import list_labelled_images
    from real_vs_ai.models.model_input import ModelInput
    from real_vs_ai.training.batches import training_batches
    from real_vs_ai.training.devices import ALONE

    ours = compiled_model(size, args, fused=True)
    steps = _WARM_UP + args.steps

    def seconds(model, data):
        clock = make_clock()
        model.fit(data, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[clock])
        return clock.seconds_per_step()

    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), count=max(400, 2 * batch_size), size=size)
        decoded = decode_images(
            list_labelled_images(Path(folder)),
            model_input=ModelInput(size),
            workers=1,
            max_memory_bytes=2**32,
        )
        batches = training_batches(
            decoded,
            batch_size=batch_size,
            steps_per_epoch=steps,
            first_step=0,
            seed=0,
            augmentation="standard",
            degrade=0.0,
            hosts=ALONE,
        )
        batch = next(iter(batches))
        in_memory = tf.data.Dataset.from_tensors(batch).repeat()
        seconds(ours, batches)
        # Before there is a second network.
        peak = peak_memory()
        plain = compiled_model(size, args, fused=False)
        # In turn, so that a machine that slows down slows all alike.
        ways = ((ours, in_memory), (ours, batches))
        ways += ((plain, in_memory), (plain, old_batches(folder, size, batch_size)))
        rounds = [[seconds(*way) for way in ways] for _ in range(2)]
        fastest = [min(way) for way in zip(*rounds, strict=True)]
    return [batch_size / value for value in fastest], peak


def peak_memory():
    """MiB that this process has held at most; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _endless(generator, batch_size):
    """Whole batches only: the directory's last one may be smaller."""
    while True:
        images, labels = next(generator)
        if len(images) == batch_size:
            yield images, labels


def main(argv=None):
    args = parse_args(argv)
    from real_vs_ai.core.reporting import format_table

    rows = []
    for size, batch_size in zip(args.sizes, args.batch_sizes, strict=True):
        # A new process each: memory is then this size's own.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            speeds, peak = pool.submit(measure, size, batch_size, args).result()
        step, fit, keras_step, slow = speeds
        peak = "" if peak is None else f"{peak:,.0f}"
        rows.append([size, batch_size, *speeds, step / keras_step, fit / slow, peak])
    headers = [
        "pixels",
        "batch",
        "step",
        "fit",
        "keras",
        "generator",
        "step/keras",
        "fit/generator",
        "peak MiB",
    ]
    network = f"{args.backbone}, {args.precision}, enlarged × {args.enlarge}"
    print(format_table(headers, rows, title=f"{network}: training images a second"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
