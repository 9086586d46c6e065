"""The network is listed and drawn by Keras, a deep one stage by stage."""

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.evaluation.network_picture import draw_network, stages_of
from real_vs_ai.models.runs import RunFolder
from tests.evaluation.evaluation_material import colour_model


def test_network_is_listed_and_drawn_where_graphviz_is(tmp_path):
    run = RunFolder(tmp_path)
    missing = draw_network(colour_model(), run)
    assert "maps (Conv2D)" in run.network.read_text()
    assert (run.figures / "network.png").is_file() == (missing is None)


@pytest.mark.parametrize("tool", ["pydot", "graphviz"])
def test_missing_tool_is_named_in_one_line_and_an_old_picture_goes(tmp_path, monkeypatch, tool):
    monkeypatch.setattr(f"keras.src.utils.model_visualization.check_{tool}", lambda: False)
    run = RunFolder(tmp_path)
    run.figures.mkdir()
    (run.figures / "network.png").write_bytes(b"of another network")
    missing = draw_network(colour_model(), run)
    assert "pip install pydot" in missing and "Graphviz (https://graphviz.org" in missing
    assert "\n" not in missing
    assert not (run.figures / "network.png").exists()
    assert not list(tmp_path.rglob(".*network*"))


def deep_model(*, statistics):
    """Forty convolutions in two stages; the head sees the last, or the last of each."""
    import keras

    x = inputs = keras.Input((16, 16, 3))
    ends = []
    for stage in (1, 2):
        for block in range(20):
            x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{stage}_block{block}_conv")(x)
        ends.append(x)
    pool = keras.layers.GlobalAveragePooling2D
    if statistics:
        parts = [pool(name=f"head_conv{i}_mean")(end) for i, end in enumerate(ends)]
        x = keras.layers.Concatenate(name="head_pool")(parts)
    else:
        x = pool()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


@pytest.mark.parametrize("statistics", [False, True])
def test_deep_network_folds_into_stages_with_equal_outputs(statistics):
    model = deep_model(statistics=statistics)
    folded = stages_of(model)
    names = [layer.name for layer in folded.layers]
    assert names[1:3] == ["conv1_20_layers", "conv2_20_layers"]
    assert len(names) == 5
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
    assert np.asarray(folded(images)) == pytest.approx(np.asarray(model(images)), abs=1e-6)


def test_network_without_stages_is_drawn_as_it_is():
    model = colour_model()
    assert [layer.name for layer in stages_of(model).layers] == [x.name for x in model.layers]


def test_picture_of_a_deep_network_fits_a_page(tmp_path):
    run = RunFolder(tmp_path)
    if draw_network(deep_model(statistics=True), run) is not None:
        pytest.skip("Graphviz is not installed")
    with Image.open(run.figures / "network.png") as picture:
        assert picture.height < 2000
