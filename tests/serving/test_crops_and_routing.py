"""Models of crops judge whole images, and each image goes to the model of its size."""

import dataclasses

import numpy as np
import pytest

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import decode_image
from real_vs_ai.models.keras_models import load_model
from real_vs_ai.models.model_file import write_metadata
from real_vs_ai.models.model_input import ModelInput
from real_vs_ai.models.runs import find_models
from real_vs_ai.out_of_distribution.check import summarise_training_images, write_check
from real_vs_ai.out_of_distribution.learning import Sample, fit_check
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.explanation import deciding_crops
from real_vs_ai.serving.image_sources import iterate_sources
from real_vs_ai.serving.judge import Judge, judge_files
from real_vs_ai.verdicts.verdict import CropScore, ReasonCode
from tests.serving.trivial_model import METADATA, encode, save_model, uniform_image

CROPS = ModelInput(32, kind="crops", crops=4, longest_side=256)


def trained_on(size, **options):
    images = summarise_training_images([size] * 4, [size] * 4, [""] * 4)
    return dataclasses.replace(METADATA, training_images=images, **options)


LARGE = trained_on(200, input=CROPS.stored())


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """Two released models: one of small images, one that judges crops of large ones."""
    folder = tmp_path_factory.mktemp("models") / "released"
    (folder / "photographs").mkdir(parents=True)
    save_model(folder / "model.h5", trained_on(32))
    save_model(folder / "photographs" / "model.h5", LARGE)
    return folder


@pytest.fixture(scope="module")
def photographs(released):
    return Detector.open(released / "photographs", engine="openvino", precision="f32")


@pytest.fixture(scope="module")
def door(released):
    return Detector.open(released, engine="openvino", precision="f32")


def half_bright(width=240, height=200):
    """Dark on the left, bright on the right."""
    pixels = uniform_image(20, (width, height))
    pixels[:, width // 2 :] = 235
    return pixels


def test_image_is_the_aggregate_of_its_crops(photographs):
    image = half_bright()
    verdict = photographs.predict(image)
    outputs = np.array([[crop.probabilities for crop in verdict.crops]])
    assert verdict.probability_fake == pytest.approx(CROPS.aggregate(outputs)[0, 0], abs=1e-5)


def test_crops_say_where_the_evidence_is(photographs):
    verdict = photographs.predict(half_bright())
    for crop in verdict.crops:
        left, _, right, _ = crop.window
        assert 0 <= left < right <= 1
        assert (crop.probabilities[0] > 0.5) == (left + right > 1)


def test_file_pixels_and_decoded_image_get_one_verdict(photographs):
    data = encode(half_bright())
    pixels = decode_image(data).pixels
    verdicts = [photographs.predict(x) for x in (data, pixels, decode_image(data))]
    assert verdicts[0] == verdicts[1] == verdicts[2]


def test_crops_of_an_image_make_two_batches(photographs):
    assert photographs.inputs_of_an_image == 4
    assert photographs.engine.batch_size == 2


def test_large_image_has_a_usual_size_once_reduced(photographs):
    assert not photographs.predict(uniform_image(250, (1500, 1100))).out_of_distribution
    assert photographs.predict(uniform_image(250, (60, 60))).out_of_distribution


@pytest.mark.parametrize(
    ("size", "name"), [((32, 32), "released"), ((40, 36), "released"), ((230, 200), "photographs")]
)
def test_each_image_goes_to_the_model_of_its_size(door, size, name):
    verdict = door.predict(uniform_image(250, size))
    assert verdict.model.split("/")[-1] == name
    assert verdict.label == "Fake"


def test_only_the_models_that_images_need_are_opened(released):
    several = Detector.open(released, engine="openvino", precision="f32")
    assert [detector.engine.is_open for detector in several.detectors] == [False, False]
    several.predict(uniform_image(250, (230, 200)))
    assert [detector.engine.is_open for detector in several.detectors] == [False, True]
    several.predict(uniform_image(250, (32, 32)))
    assert [detector.engine.is_open for detector in several.detectors] == [True, True]


@pytest.mark.parametrize("side", [8, 52, 99])
def test_image_of_a_size_that_no_model_knows_is_told_the_size_of_photographs(door, side):
    refused = door.predict(uniform_image(250, (side, side)))
    assert refused.out_of_distribution and refused.model == "released/photographs"
    told = refused.out_of_distribution_reason.sentence
    assert "Use pictures at least 200 pixels wide and high" in told and "32" not in told


def test_models_behind_one_door_answer_as_each_alone(door, photographs):
    images = [uniform_image(10 * i, (32 if i % 2 else 220, 200 - 168 * (i % 2))) for i in range(6)]
    verdicts = door.predict_batch(images)
    for image, verdict in zip(images[::2], verdicts[::2], strict=True):
        assert verdict == photographs.predict(image)


def test_scores_of_a_folder_name_the_model(door, tmp_path):
    for name, size in (("a.png", (32, 32)), ("b.png", (230, 200))):
        (tmp_path / name).write_bytes(encode(uniform_image(250, size)))
    (tmp_path / "c.png").write_bytes(b"no image")
    scores = list(judge_files(iterate_sources([str(tmp_path)]), detector=door, workers=1))
    assert [score.verdict and score.verdict.model for score in scores] == [
        "released",
        "released/photographs",
        None,
    ]


def test_folder_with_several_models_means_all_and_a_file_means_one(released):
    small, large = released / "model.h5", released / "photographs" / "model.h5"
    assert find_models(released) == (small, large)
    assert find_models(small) == (small,)
    assert find_models(released / "photographs") == (large,)
    assert find_models(None, models_dir=released.parent) == (small, large)


def test_models_of_other_classes_do_not_share_a_door(released, tmp_path):
    folder = tmp_path / "released"
    (folder / "other").mkdir(parents=True)
    save_model(folder / "model.h5", trained_on(32))
    path = save_model(folder / "other" / "model.h5", METADATA)
    write_metadata(path, dataclasses.replace(LARGE, class_names=("benign", "malignant")))
    with pytest.raises(InputError, match="same classes"):
        Detector.open(folder, engine="openvino", precision="f32")


def test_deciding_crops_favour_the_class_and_do_not_hide_each_other(photographs):
    verdict = photographs.predict(half_bright())
    for index, side in ((0, 1), (1, 0)):
        chosen = deciding_crops(verdict.crops, class_index=index)
        assert 1 <= len(chosen) <= 3
        assert all(crop.probabilities[index] > 0.5 for crop in chosen)
        centres = [(crop.window[0] + crop.window[2]) / 2 for crop in chosen]
        assert all((centre > 0.5) == bool(side) for centre in centres)
    same = [CropScore((0, 0, 0.5, 0.5), (0.9, 0.1)), CropScore((0, 0, 0.4, 0.5), (0.8, 0.2))]
    assert deciding_crops(same, class_index=0) == same[:1]


def test_app_offers_all_released_models_and_each_alone(released):
    from real_vs_ai.ui.model_choice import SEVERAL_RELEASED, available_models

    offered = available_models(model=None, models_dir=released.parent)
    assert list(offered) == [SEVERAL_RELEASED, "released", "released/photographs"]
    assert offered[SEVERAL_RELEASED] == released


def test_shared_model_knows_the_thresholds_of_every_model(released):
    shared = Judge(released)
    verdict = shared.judge_pixels(uniform_image(250, (230, 200)))
    assert shared.model_of(verdict).metadata == LARGE


def test_plain_pictures_get_no_verdict_from_a_model_of_crops(tmp_path):
    import keras

    path = save_model(tmp_path / "model.h5", LARGE)
    model = load_model(path)
    layer = next(x.name for x in model.layers if x.name.startswith("global_average_pooling2d"))
    body = keras.Model(model.inputs, model.get_layer(layer).output)
    generator = np.random.default_rng(0)

    def picture():
        small = generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        return np.kron(small, np.ones((20, 20, 1), np.uint8)) // 2 + generator.integers(
            0, 128, (200, 240, 3), dtype=np.uint8
        )

    def sample(n):
        pixels = np.stack([CROPS.prepare(picture()) for _ in range(n)])
        features = body([pixels.reshape(-1, 32, 32, 3).astype(np.float32)]).numpy()
        return Sample(features.reshape(n, 4, -1).mean(axis=1), pixels, np.arange(n) % 2)

    write_check(path, fit_check(sample(60), sample(300), layer=layer))
    detector = Detector.open(path, engine="openvino", precision="f32")
    document = np.full((200, 240, 3), 250, np.uint8)
    document[::12, 10:-10:3] = 20
    found = detector.predict(document)
    assert found.label == "Uncertain" and found.out_of_distribution_reason.code is ReasonCode.PLAIN
    judged = detector.predict_batch([picture() for _ in range(10)])
    assert sum(verdict.out_of_distribution for verdict in judged) <= 2
