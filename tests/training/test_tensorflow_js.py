"""ResNet weights from TensorFlow.js files: the same features, and one clear line for bad files."""

import json

import keras
import numpy as np
import pytest

from real_vs_ai.errors import InputError
from real_vs_ai.training.backbones import BACKBONES
from real_vs_ai.training.networks import resnet

OLD_NAMES = {
    "conv1_conv": "conv1",
    "conv1_bn": "bn_conv1",
    "conv2_block1_0_conv": "res2a_branch1",
    "conv2_block1_0_bn": "bn2a_branch1",
    "conv2_block2_3_conv": "res2b_branch2c",
    "conv2_block2_3_bn": "bn2b_branch2c",
}
OLD_EPSILON = 1e-2


def network(names=tuple(OLD_NAMES), *, epsilon=1.001e-5):
    """A chain of convolutions, each normalised."""
    x = inputs = keras.Input((8, 8, 3))
    for present, name in zip(OLD_NAMES, names, strict=True):
        if present.endswith("conv"):
            x = keras.layers.Conv2D(4, 3, name=name, padding="same")(x)
        else:
            x = keras.layers.BatchNormalization(name=name, epsilon=epsilon)(x)
    return keras.Model(inputs, x)


def randomise(model):
    generator = np.random.default_rng(4)
    model.set_weights([generator.uniform(0.01, 1, w.shape) for w in model.get_weights()])
    return model


def write(model, folder, *, shard_bytes=700):
    """Write a model as TensorFlow.js' converter does: weights in shards of equal size."""
    content, declared = b"", []
    for layer in model.layers:
        for variable in layer.weights:
            values = np.asarray(variable, np.float32)
            name = f"{layer.name}/{variable.name}"
            declared.append({"name": name, "shape": list(values.shape), "dtype": "float32"})
            content += values.tobytes()
    shards = [content[i : i + shard_bytes] for i in range(0, len(content), shard_bytes)]
    names = [f"group1-shard{i + 1}of{len(shards)}.bin" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        (folder / name).write_bytes(shard)
    group = {"paths": names, "weights": declared}
    topology = {"model_config": json.loads(model.to_json())}
    path = folder / "model.json"
    path.write_text(json.dumps({"modelTopology": topology, "weightsManifest": [group]}))
    return path


@pytest.fixture
def small_resnet(monkeypatch):
    monkeypatch.setattr(resnet, "keras_resnet", lambda name, weights: network())


def test_file_with_the_old_names_and_epsilon_gives_the_same_features(small_resnet, tmp_path):
    old = randomise(network(OLD_NAMES.values(), epsilon=OLD_EPSILON))
    read = BACKBONES["resnet50"].read_weights[".json"](write(old, tmp_path))
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 3))
    expected = old.predict(pixels, verbose=0)
    assert expected.std() > 1
    np.testing.assert_allclose(read.predict(pixels, verbose=0), expected, rtol=1e-4)


def test_file_with_todays_names_gives_its_weights(small_resnet, tmp_path):
    present = randomise(network())
    read = BACKBONES["resnet50"].read_weights[".json"](write(present, tmp_path))
    for ours, theirs in zip(read.get_weights(), present.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("further", ["conv2_block3_1_conv", "res2c_branch2a"])
def test_deeper_network_is_not_cut_to_fit(small_resnet, tmp_path, further):
    model = network()
    deeper = keras.Model(
        model.inputs, keras.layers.Conv2D(4, 3, name=further, padding="same")(model.output)
    )
    path = write(randomise(deeper), tmp_path)
    with pytest.raises(InputError, match=r"found another network \(it is deeper\)"):
        BACKBONES["resnet50"].read_weights[".json"](path)


def _cut(path):
    shard = path.with_name("group1-shard2of3.bin")
    shard.write_bytes(shard.read_bytes()[:-8])


def _lengthen(path):
    shard = path.with_name("group1-shard1of3.bin")
    shard.write_bytes(shard.read_bytes() + bytes(8))


def _change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("{"), "not the model.json"),
        (lambda path: path.write_text("[" * 100_000), "not the model.json"),
        (lambda path: path.write_text('{"modelTopology": null}'), "not the model.json"),
        (lambda path: _change(path, "group1-shard1of3.bin", "../secret.bin"), "another folder"),
        (lambda path: _change(path, '"float32"}', '"uint8"}'), "Expected float32"),
        (lambda path: _change(path, "[3, 3, 3, 4]", "[3, 3, 3, -4]"), "not whole"),
        (lambda path: _change(path, "[3, 3, 3, 4]", "[3, 3, 3, 4000]"), "not whole"),
        (lambda path: _change(path, "conv2_block2_3_bn", "other"), "found another network"),
        (lambda path: _change(path, "[3, 3, 3, 4]", "[3, 3, 3, 1e999]"), "not the model.json"),
        (lambda path: _change(path, '"epsilon": 1.001e-05', '"epsilon": NaN'), "an epsilon of nan"),
        (_cut, "not whole"),
        (_lengthen, "longer than it says"),
    ],
)
def test_damaged_file_and_another_network_are_one_clear_line(
    small_resnet, tmp_path, damage, message
):
    path = write(randomise(network()), tmp_path)
    assert len(list(tmp_path.iterdir())) == 4
    damage(path)
    with pytest.raises(InputError, match=message) as caught:
        BACKBONES["resnet50"].read_weights[".json"](path)
    assert "\n" not in str(caught.value)


def test_missing_shard_is_named(small_resnet, tmp_path):
    path = write(randomise(network()), tmp_path)
    path.with_name("group1-shard2of3.bin").unlink()
    with pytest.raises(FileNotFoundError, match="group1-shard2of3"):
        BACKBONES["resnet50"].read_weights[".json"](path)
