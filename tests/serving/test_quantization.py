"""int8 is made from labelled images, and refused where it would cost accuracy."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from real_vs_ai import Detector
from real_vs_ai.model_file import ModelFileError
from real_vs_ai.serving import quantization
from real_vs_ai.serving.model_cache import cached_ir
from real_vs_ai.serving.quantization import QuantizationError, ensure_int8
from tests.serving.trivial_model import encode, uniform_image

pytest.importorskip("nncf")
pytestmark = pytest.mark.optional


@pytest.fixture
def labelled(tmp_path):
    """260 images: the bright ones Fake, the dark ones Real, in raw class folders."""
    generator = np.random.default_rng(0)
    for index in range(260):
        bright = index % 2
        level = int(generator.integers(150, 250) if bright else generator.integers(5, 100))
        path = tmp_path / "validation" / ("FAKE" if bright else "REAL") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(-5, 6, (40, 48, 3))
        path.write_bytes(encode((uniform_image(level) + noise).clip(0, 255).astype(np.uint8)))
    return tmp_path / "validation"


@pytest.fixture
def model(model_with, detector):
    """A model file of its own whose cache entry has no int8 form yet."""
    path = model_with(own_weights=True)
    yield path

    shutil.rmtree(cached_ir(path).folder, ignore_errors=True)


@contextlib.contextmanager
def accuracies_of(monkeypatch, *accuracies):
    """The float32 model's accuracy is found to be the first, that of each attempt the next."""
    remaining = iter(accuracies)
    with monkeypatch.context() as patch:
        patch.setattr(quantization, "_accuracy", lambda *_, **__: next(remaining))
        yield remaining


def layers_in_8_bits(ir: Path) -> set[str]:
    """The kinds of layers with weights that OpenVINO computes in 8 bits."""
    compiled = ov.Core().compile_model(ir, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return {
        info["layerType"].astype(str)
        for info in infos
        if info["layerType"].astype(str) in {"Convolution", "FullyConnected"}
        and info["runtimePrecision"].astype(str) in {"i8", "u8"}
    }


def test_int8_is_made_once_kept_and_as_accurate(model, labelled, monkeypatch):
    with pytest.raises(ModelFileError, match="--calibration"):
        Detector.open(model, precision="int8")

    # Refused first: nothing may remain of it.
    with accuracies_of(monkeypatch, 0.95, 0.94, 0.947, 0.945) as patched:
        with pytest.raises(QuantizationError, match=r"11 convolutions .* int8 is refused"):
            ensure_int8(model, calibration_dir=labelled)
        assert not list(patched)
    assert not cached_ir(model).int8_ir.exists()

    report = ensure_int8(model, calibration_dir=labelled)
    assert report.n_images == 130
    assert report.n_float_convolutions == 0
    assert report.int8_accuracy == pytest.approx(report.accuracy, abs=0.002)
    assert ensure_int8(model, calibration_dir=labelled) is None
    assert layers_in_8_bits(cached_ir(model).int8_ir) == {"Convolution", "FullyConnected"}
    detector = Detector.open(model, precision="int8")
    assert detector.engine.precision == "int8"
    assert detector.predict(uniform_image(230)).label == "Fake"
    assert detector.predict(uniform_image(20)).label == "Real"


def test_sensitive_layers_stay_in_float_when_int8_costs_too_much(model, labelled, monkeypatch):
    # Exactly the loss that is allowed, which is a trifle more in floating point.
    assert quantization.LARGEST_ACCURACY_LOSS < 0.95 - 0.948
    with accuracies_of(monkeypatch, 0.95, 0.94, 0.948):
        report = ensure_int8(model, calibration_dir=labelled)
    assert report.n_float_convolutions == 1
    assert "the first convolution and the classifier left in floating point" in str(report)
    assert layers_in_8_bits(cached_ir(model).int8_ir) == set()


def test_unwritable_cache_is_reported(model, labelled, tmp_path, monkeypatch):
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    monkeypatch.setenv("REAL_VS_AI_CACHE", str(in_the_way))
    with pytest.raises(QuantizationError, match="REAL_VS_AI_CACHE"):
        ensure_int8(model, calibration_dir=labelled)


def test_too_few_images_or_none_are_refused(model, labelled, tmp_path):
    with pytest.raises(QuantizationError, match="no such folder"):
        ensure_int8(model, calibration_dir=tmp_path / "missing")
    for path in sorted((labelled / "FAKE").iterdir())[:100]:
        path.unlink()
    with pytest.raises(QuantizationError, match="at least 200 labelled images"):
        ensure_int8(model, calibration_dir=labelled)
