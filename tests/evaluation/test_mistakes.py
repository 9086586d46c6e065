"""The sheet shows the most confident mistakes."""

from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.figures import draw_mistakes, most_confident_mistakes
from real_vs_ai.evaluation.judging import judge_split, open_detector
from real_vs_ai.models.model_file import ModelMetadata
from tests.evaluation.evaluation_material import SIZE, colour_model, write_images

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=SIZE)


def sheet(tmp_path, model, *, wrong):
    write_images(tmp_path / "test", n=10, wrong=wrong)
    model.save(tmp_path / "model.h5")
    images = list_labelled_images(tmp_path / "test")
    detector = open_detector(tmp_path / "model.h5", METADATA)
    predictions = judge_split(detector, images, split="test", workers=1).rows(METADATA)
    path = tmp_path / "mistakes.png"
    draw_mistakes(predictions, images, metadata=METADATA, model=model, path=path)
    return path, predictions


def test_the_most_confident_mistakes_come_first(tmp_path):
    path, predictions = sheet(tmp_path, colour_model(), wrong=3)
    assert path.is_file()
    found = most_confident_mistakes(predictions, most=4)
    assert (~predictions.is_right).sum() == 6
    assert not predictions.is_right[found].any()
    confidence = predictions.probabilities.max(axis=1)[found].tolist()
    assert confidence == sorted(confidence, reverse=True)
    assert confidence[0] == predictions.probabilities[~predictions.is_right].max()


def test_faultless_model_leaves_no_sheet_of_an_earlier_one(tmp_path):
    (tmp_path / "mistakes.png").write_bytes(b"old")
    path, _ = sheet(tmp_path, colour_model(), wrong=0)
    assert not path.exists()


def test_network_without_feature_maps_still_has_its_mistakes_shown(tmp_path):
    import keras

    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    path, predictions = sheet(tmp_path, model, wrong=3)
    assert path.is_file() == (not predictions.is_right.all())
