"""Run small trainings: a tiny network in place of a ResNet, on images it can tell apart."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_runs import like_resnet50, options_for, tiny_backbone, write_splits

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
    """Makes `--backbone resnet50` mean the tiny network."""
    monkeypatch.setitem(backbones.BACKBONES, "resnet50", like_resnet50(tiny_backbone))
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


@pytest.fixture
def data(tmp_path):
    return write_splits(tmp_path / "data")


@pytest.fixture
def parse(data, tmp_path):
    """Options for a small run on `data`, as the command line would give them, words or a text."""

    def parse(*arguments, data=data):
        words = " ".join(arguments).split()
        command_line = options_for(data, tmp_path / "models", *words)
        return parse_training_options(command_line, description="test")

    return parse
