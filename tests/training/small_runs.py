"""Make a network of a few thousand weights, and class folders that it can tell apart.

`main` is ModelTraining.py with that network in place of resnet50, and with empty figures.
LOGICAL_CPUS in the environment makes that many devices of the CPU.
"""

import csv
import dataclasses
import os
import sys
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image


def like_resnet50(build):
    """A backbone with another network, declared as ResNet50 is."""
    from real_vs_ai.networks.backbones import BACKBONES

    def stage_ends(body):
        return [layer.name for layer in body.layers if layer.name.endswith("_relu")]

    strides = {stride: {"conv0": stride} for stride in (4, 2, 1)}
    return dataclasses.replace(
        BACKBONES["resnet50"], build=build, stem_strides=strides, stage_ends=stage_ends
    )


def tiny_backbone(*, weights, input_tensor=None, filters=(8, 16)):
    """Two convolutions in the form of a backbone."""
    if weights == "imagenet":
        raise Exception("URL fetch failure on https://example.org/tiny_notop.h5: no network")
    inputs = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    x = inputs
    for i, n in enumerate(filters):
        x = keras.layers.Conv2D(n, 3, strides=4, padding="same", name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"conv{i}_bn")(x)
        x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
    start = inputs if input_tensor is None else inputs._keras_history.operation.output
    return keras.Model(keras.utils.get_source_inputs(start), x)


def build_network(*, class_names=("Fake", "Real"), **options):
    """A network of random weights with the usual head, but a small hidden layer."""
    from real_vs_ai.networks.model import build_model

    head = {"noise": 0.1, "pooling": "global-average", "dense_units": 16, "l2": 1e-4}
    network = {"backbone": "resnet50", "image_size": 32, "weights": "none", "stem_stride": 4}
    usual = {"dropout": 0.4, "enlarge": 1, "batch_norm_momentum": 0.99, "seed": 1}
    described = types.SimpleNamespace(**{**head, **network, **usual, **options})
    return build_model(described, class_names=class_names)


def write_class(folder, *, count, colour, size=32, seed=0):
    """Noisy images around one colour."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for i in range(count):
        pixels = generator.normal(colour, 40, (size, size, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"source__{i:03}.png")


def write_splits(root, *, counts=(24, 12, 12), classes=("Fake", "Real"), size=32):
    """train, validation and test folders whose classes differ in colour."""
    colours = ((200, 60, 60), (60, 60, 200), (60, 200, 60))
    for n, (split, count) in enumerate(zip(("train", "validation", "test"), counts, strict=True)):
        for k, name in enumerate(classes):
            write_class(
                root / split / name, count=count, colour=colours[k], size=size, seed=10 * n + k
            )
    return root


def options_for(data, models_dir, *more):
    """The command line of a run of the tiny network on these images; later options win."""
    network = "--backbone resnet50 --weights none --image-size 32 --precision float32"
    learning = "--batch-size 8 --workers 1 --set patience=99 --epochs 2"
    folders = ("--data", str(data), "--models-dir", str(models_dir))
    return (*folders, *network.split(), *learning.split(), *more)


def main():
    """Run ModelTraining.py on the tiny network."""
    import ModelTraining
    from real_vs_ai.networks import backbones
    from real_vs_ai.training import devices

    backbones.BACKBONES["resnet50"] = like_resnet50(tiny_backbone)
    devices.best_precision = lambda gpus: "float32"
    Figure.savefig = lambda _, file, **__: file.touch()
    if count := int(os.environ.get("LOGICAL_CPUS", "0")):
        import tensorflow as tf

        parts = [tf.config.LogicalDeviceConfiguration()] * count
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    return ModelTraining.main()


def learning_of(*arguments, **facts):
    """What callbacks read of a run, with the options of a command line."""
    from real_vs_ai.training.command_line import parse_training_options
    from real_vs_ai.training.devices import Hosts

    options = parse_training_options(["--weights", "none", *arguments], description="test")
    return types.SimpleNamespace(options=options, hosts=Hosts(0, 1), say=quiet, **facts)


def quiet(line):
    pass


def train(options, *, say=quiet):
    """A whole run: what ModelTraining.py does with its options."""
    from real_vs_ai.training import run_folder, trainer

    return run_folder.finish(trainer.train(options, say=say), say=say)


class Killed(BaseException):
    """Stands for the end of the process: nothing in the code catches it."""


def begin(monkeypatch, options, *, say=quiet):
    """Let a run die before its first step; what it was to learn from."""
    from real_vs_ai.training import trainer

    held = []

    def die(learning):
        held.append(learning)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "run_stages", die)
        with pytest.raises(Killed):
            train(options, say=say)
    return held[0]


def train_until(monkeypatch, options, *, step):
    """Let a run die after this many steps, before the recorder hears of the last one."""
    from real_vs_ai.training.callbacks import Recorder

    original, done = Recorder.on_train_batch_end, []

    def on_train_batch_end(recorder, batch, logs=None):
        done.append(batch)
        if len(done) == step:
            raise Killed
        original(recorder, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", on_train_batch_end)
        with pytest.raises(Killed):
            train(options)


def die_in_report(monkeypatch, options):
    """Let a run die after it has saved its model."""
    from real_vs_ai.training import run_folder

    def die(*_, **__):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_report", die)
        with pytest.raises(Killed):
            train(options)


def read_history(run):
    with run.history.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    sys.exit(main())
