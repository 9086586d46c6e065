"""The sheet shows the most confident mistakes, and the network is drawn."""

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.judging import judge_split, open_detector
from real_vs_ai.evaluation.pictures import (
    draw_mistakes,
    draw_network,
    most_confident_mistakes,
    stages_of,
)
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.runs import RunFolder
from tests.evaluation.evaluation_material import SIZE, colour_model, write_images

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=SIZE)


def sheet(tmp_path, model, *, wrong):
    write_images(tmp_path / "test", n=10, wrong=wrong)
    model.save(tmp_path / "model.h5")
    images = list_labelled_images(tmp_path / "test")
    detector = open_detector(tmp_path / "model.h5", METADATA)
    predictions = judge_split(detector, images, split="test", workers=1).rows(METADATA)
    run = RunFolder(tmp_path / "run")
    drawn = draw_mistakes(run, predictions, images, metadata=METADATA, model=model)
    return drawn, predictions, run


def test_the_most_confident_mistakes_come_first(tmp_path):
    path, predictions, _ = sheet(tmp_path, colour_model(), wrong=3)
    assert path.is_file()
    found = most_confident_mistakes(predictions, most=4)
    assert (~predictions.is_right).sum() == 6
    assert not predictions.is_right[found].any()
    confidence = predictions.probabilities.max(axis=1)[found].tolist()
    assert confidence == sorted(confidence, reverse=True)
    assert confidence[0] == predictions.probabilities[~predictions.is_right].max()


def test_faultless_model_leaves_no_sheet_of_an_earlier_one(tmp_path):
    path, _, run = sheet(tmp_path, colour_model(), wrong=0)
    assert path is None
    run.figures.mkdir(parents=True)
    (run.figures / "mistakes.png").write_bytes(b"old")
    assert sheet(tmp_path, colour_model(), wrong=0)[0] is None
    assert not (run.figures / "mistakes.png").exists()


def test_network_without_feature_maps_still_has_its_mistakes_shown(tmp_path):
    import keras

    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    path, predictions, _ = sheet(tmp_path, model, wrong=3)
    wrong = (predictions.probabilities.argmax(axis=1) != predictions.labels).any()
    assert (path is not None and path.is_file()) == wrong


def test_network_is_listed_and_drawn_where_graphviz_is(tmp_path):
    run = RunFolder(tmp_path)
    missing = draw_network(colour_model(), run)
    assert "maps (Conv2D)" in (tmp_path / "network.txt").read_text()
    assert (run.figures / "network.png").is_file() == (missing is None)


def test_missing_graphviz_is_reported_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("keras.src.utils.model_visualization.check_graphviz", lambda: False)
    run = RunFolder(tmp_path)
    missing = draw_network(colour_model(), run)
    assert "install Graphviz" in missing
    assert "\n" not in missing
    assert not (run.figures / "network.png").exists()
    assert not list(tmp_path.rglob(".network*"))


def staged_model():
    import keras

    x = inputs = keras.Input((16, 16, 3))
    for stage in (1, 2):
        for block in range(20):
            x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{stage}_block{block}_conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax")(x))


def test_deep_network_folds_into_stages_with_equal_outputs():
    model = staged_model()
    folded = stages_of(model)
    names = [layer.name for layer in folded.layers]
    assert names[1:3] == ["conv1_20_layers", "conv2_20_layers"]
    assert len(names) == 5
    images = np.random.default_rng(0).uniform(0, 1, (2, 16, 16, 3)).astype(np.float32)
    assert folded.predict(images, verbose=0) == pytest.approx(
        model.predict(images, verbose=0), abs=1e-6
    )


def test_picture_of_a_deep_network_fits_a_page(tmp_path):
    run = RunFolder(tmp_path)
    if draw_network(staged_model(), run) is not None:
        pytest.skip("Graphviz is not installed")
    with Image.open(run.figures / "network.png") as picture:
        assert picture.height < 2000
