"""Run small trainings: a tiny network in place of a ResNet, on images it can tell apart."""

import contextlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_runs import build_network, like_resnet50, options_for, tiny_backbone, write_splits

from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.networks import backbones
from real_vs_ai.training import devices
from real_vs_ai.training.command_line import parse_training_options


@pytest.fixture
def set_precision():
    """Sets the first of some policies in which TensorFlow computes here; skips the test if none is.

    oneDNN that ONEDNN_MAX_CPU_ISA limits to AVX2 refuses half precisions that TensorFlow, which
    looks at the processor alone, hands to it.
    """

    def set_precision(*policies):
        for policy in policies:
            with contextlib.suppress(tf.errors.AbortedError):
                convolution = keras.layers.Conv2D(2, 3, dtype=policy)
                convolution(np.zeros((1, 8, 8, 3), np.float32))
                return keras.config.set_dtype_policy(policy)
        pytest.skip(f"oneDNN is limited: TensorFlow does not compute in {' or '.join(policies)}")

    yield set_precision
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def tiny(monkeypatch):
    """Makes `--backbone resnet50` and resnet101 mean the tiny network."""
    for name in ("resnet50", "resnet101"):
        monkeypatch.setitem(backbones.BACKBONES, name, like_resnet50(tiny_backbone))
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def short(monkeypatch):
    """Leaves out what a test of something else need not have: half precision and the report."""
    from real_vs_ai.training import run_folder

    def report(trained, *_):
        trained.run.metrics.write_text("{}")
        return {}

    monkeypatch.setattr(devices, "best_precision", lambda gpus: "float32")
    monkeypatch.setattr(run_folder, "write_report", report)


@pytest.fixture(scope="session")
def splits(tmp_path_factory):
    return write_splits(tmp_path_factory.mktemp("splits") / "data")


@pytest.fixture
def data(splits, tmp_path):
    return shutil.copytree(splits, tmp_path / "data")


@pytest.fixture
def first_model(tiny, tmp_path):
    """Writes a file of the tiny network, from which a run can start."""

    def first_model(**options):
        size = options.get("image_size", 32)
        metadata = ModelMetadata(("Fake", "Real"), size, backbone="resnet50")
        path = tmp_path / "first.h5"
        save_model(build_network(**{"dense_units": 256, **options}), path, metadata=metadata)
        return path

    return first_model


@pytest.fixture
def parse(data, tmp_path):
    """Options for a small run on `data`, as the command line would give them, words or a text."""

    def parse(*arguments, data=data):
        words = " ".join(arguments).split()
        command_line = options_for(data, tmp_path / "models", *words)
        return parse_training_options(command_line, description="test")

    return parse
