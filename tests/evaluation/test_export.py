"""Every exported file gives the same probabilities, or is not written."""

import dataclasses
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai.evaluation import export, torch_state
from real_vs_ai.evaluation.export import FORMATS, export_model
from real_vs_ai.models.model_file import ModelMetadata, read_metadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, read_check
from real_vs_ai.serving.openvino_engine import OpenVINOEngine
from tests.evaluation.evaluation_material import SIZE, colour_model

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=SIZE, temperature=1.7)
PIXELS = np.random.default_rng(0).integers(0, 256, (200, SIZE, SIZE, 3), dtype=np.uint8)


def export_to(folder, *formats, model=None, check=None, pixels=PIXELS):
    return export_model(
        model or colour_model(),
        formats=formats,
        folder=folder,
        metadata=METADATA,
        check=check,
        pixels=pixels,
    )


def test_file_is_checked_on_every_image_and_described(tmp_path):
    (result,) = export_to(tmp_path, "compact")
    assert (result.name, result.error, result.n) == ("compact", "", 200)
    assert result.difference < 1e-5
    assert result.path.exists()
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["class_names"] == ["Fake", "Real"]
    assert metadata["temperature"] == 1.7


def test_compact_file_is_smaller_and_loads_with_plain_keras(tmp_path):
    import h5py
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(256, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(64, 3)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    check = OutOfDistributionCheck(
        layer=model.layers[-2].name,
        means=np.ones((2, 64), np.float32) / 3,
        whitening=np.eye(64, dtype=np.float32) / 3,
        largest_distance=2.0,
        least_sharpness=1.0,
        largest_sharpness=9.0,
    )
    (result,) = export_to(tmp_path, "compact", model=model, check=check)
    assert result.error == ""
    assert result.difference < 1e-3
    # The out-of-distribution check goes along, and keeps its precision.
    np.testing.assert_array_equal(read_check(result.path).whitening, check.whitening)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == ["model.h5"]
    assert result.path.stat().st_size < 0.6 * 4 * model.count_params()
    assert read_metadata(result.path) == METADATA
    # The halved weights are those of the graph that OpenVINO runs.
    engine = OpenVINOEngine(result.path, image_size=SIZE, precision="f32")
    loaded = keras.models.load_model(result.path)
    expected = loaded.predict(PIXELS[:4].astype(np.float32), verbose=0)
    np.testing.assert_allclose(engine.predict(PIXELS[:4])[:, :2], expected, atol=1e-5)
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    # Losslessly compressed: what is read is the float16 of every large array.
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        expected = theirs.astype(np.float16) if theirs.size >= 4096 else theirs
        np.testing.assert_array_equal(ours, expected.astype(np.float32))
    with h5py.File(result.path) as file:
        assert not any(name.startswith("optimizer") for name in file)


def test_compact_file_refuses_weights_that_float16_cannot_hold(tmp_path):
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(512, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    kernel, bias = model.layers[1].get_weights()
    kernel[0, 0, 0, 0] = 1e6
    model.layers[1].set_weights([kernel, bias])
    (result,) = export_to(tmp_path, "compact", model=model)
    assert "cannot be stored as float16" in result.error
    assert not (tmp_path / "model.h5").exists()


@pytest.mark.parametrize("name", ["keras", "savedmodel", "openvino"])
def test_keras_own_formats_give_the_same_probabilities(tmp_path, name):
    import keras

    # Models whose input is a list of one must not ask their callers for a list.
    model = colour_model()
    (result,) = export_to(tmp_path, name, model=keras.Model([model.inputs[0]], model.outputs))
    assert result.error == ""
    assert result.difference < 1e-5
    assert result.path.exists()


@pytest.mark.optional
@pytest.mark.parametrize(
    ("name", "package", "extra"), [("onnx", "onnx", "onnx"), ("litert", "ai_edge_litert", "litert")]
)
def test_format_of_another_package_is_written_or_names_its_extra(tmp_path, name, package, extra):
    (result,) = export_to(tmp_path, name)
    try:
        __import__(package)
    except ImportError:
        assert f".[{extra}]" in result.error
        assert result.path is None
        assert {path.name for path in tmp_path.iterdir()} == {"metadata.json"}
    else:
        assert result.error == ""
        assert result.difference < 1e-5


def test_missing_torch_is_named_with_its_extra_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(torch_state, "state_of", lambda model: {})
    (result,) = export_to(tmp_path, "pth")
    assert "torch" in result.error and ".[torch]" in result.error
    assert "\n" not in result.error
    assert not (tmp_path / "model.pth").exists()


def test_network_that_torchvision_does_not_name_is_refused(tmp_path):
    (result,) = export_to(tmp_path, "pth")
    assert "expected resnet50, resnet101, resnet152 for pth, found colours" in result.error


def resnet(pooling, *, backbone="resnet50", stem_stride=4, enlarge=1):
    """A ResNet at random, whose normalisations do something."""
    import keras

    from real_vs_ai.networks.model import build_model

    head = {"noise": 0.1, "pooling": pooling, "dense_units": 16, "l2": 1e-4, "dropout": 0.4}
    network = {"backbone": backbone, "image_size": 32, "weights": "none", "enlarge": enlarge}
    usual = {"stem_stride": stem_stride, "batch_norm_momentum": 0.99, "seed": 1}
    options = types.SimpleNamespace(**head, **network, **usual)
    model = build_model(options, class_names=("Fake", "Real"))
    generator = np.random.default_rng(2)
    for layer in model.layers:
        # "head_weights" only multiplies.
        if isinstance(layer, keras.layers.BatchNormalization) and layer.name != "head_weights":
            layer.moving_mean.assign(generator.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(generator.uniform(0.5, 2, layer.moving_mean.shape))
            if layer.scale:
                layer.gamma.assign(generator.uniform(0.2, 0.8, layer.gamma.shape))
    return model


@pytest.mark.optional
@pytest.mark.parametrize(
    ("pooling", "how"),
    [
        ("global-average", {"backbone": "resnet101"}),
        ("average-flatten", {"enlarge": 3}),
        ("equal-stages", {"stem_stride": 1}),
    ],
)
def test_documented_loader_gives_keras_answers_from_a_torch_file(tmp_path, pooling, how):
    torch = pytest.importorskip("torch", reason="torch is optional")
    from real_vs_ai.evaluation import pth_loader

    model = resnet(pooling, **how)
    pixels = np.random.default_rng(2).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    (result,) = export_to(tmp_path, "pth", model=model, pixels=pixels)
    assert result.error == ""
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    found = pth_loader.predict(state, torch.from_numpy(pixels))
    expected = model.predict(pixels.astype(np.float32), verbose=0)
    assert found.numpy() == pytest.approx(expected, abs=1e-4)
    # As torchvision.models.resnet50 and resnet101 name and shape them.
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer4.2.bn3.running_var"].shape == (2048,)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    backbone = [key for key in state if not key.startswith(("head.", "input.", "pool."))]
    # 53 or 104 convolutions, each with a normalisation of five entries.
    assert len(backbone) == 6 * (104 if "backbone" in how else 53)


def test_loader_of_the_torch_file_needs_thirty_lines():
    assert len(Path(torch_state.__file__).with_name("pth_loader.py").read_text().splitlines()) <= 30


def test_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    def load_undecided(path):
        return lambda images: np.full((len(images), 2), 0.5)

    wrong = dataclasses.replace(FORMATS["compact"], load=load_undecided)
    monkeypatch.setitem(export.FORMATS, "compact", wrong)
    (result,) = export_to(tmp_path, "compact")
    assert "differ by up to" in result.error
    assert result.difference > 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"metadata.json"}


def test_earlier_export_stays_when_a_new_one_fails(tmp_path, monkeypatch):
    (first,) = export_to(tmp_path, "compact")
    before = first.path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    failing = dataclasses.replace(FORMATS["compact"], write=fail)
    monkeypatch.setitem(export.FORMATS, "compact", failing)
    (second,) = export_to(tmp_path, "compact")
    assert second.error == "No space left on device"
    assert first.path.read_bytes() == before
