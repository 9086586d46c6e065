"""A model gets resized images, or crops that cover them evenly."""

import io

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import decode_image, resize_image
from real_vs_ai.models.model_file import (
    ModelFileError,
    ModelMetadata,
    read_metadata,
    write_metadata,
)
from real_vs_ai.models.model_input import ModelInput, read_model_input, reduce_to


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def crops(number=9, size=32, **options):
    return ModelInput(size, kind="crops", crops=number, **options)


def test_resize_is_what_older_model_files_mean():
    model_input = read_model_input({}, size=24)
    pixels = picture(50, 40)
    assert np.array_equal(model_input.prepare(pixels)[0], resize_image(pixels, 24))
    assert model_input.views == 1


def test_crops_are_unchanged_pixels_of_the_picture():
    pixels = picture(100, 160)
    model_input = crops()
    places = model_input.places(100, 160, count=9)
    for (top, left), crop in zip(places, model_input.prepare(pixels), strict=True):
        assert np.array_equal(crop, pixels[top : top + 32, left : left + 32])


@pytest.mark.parametrize("number", [1, 4, 5, 9, 12])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 300), (900, 700)])
def test_crops_lie_inside_and_cover_all_parts(number, height, width):
    places = crops(number).places(height, width, count=number)
    tops, lefts = np.array(places).T
    assert len(places) == number
    assert tops.min() >= 0 and (tops + 32).max() <= height
    assert lefts.min() >= 0 and (lefts + 32).max() <= width
    # As much room above and to the left as below and to the right.
    if number in (1, 4, 5, 9):
        assert abs(tops.min() - (height - 32 - tops.max())) <= 1
        assert abs(lefts.min() - (width - 32 - lefts.max())) <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (10, 20), (31, 400)])
def test_small_images_are_mirrored_at_their_edges(height, width):
    pixels = picture(height, width)
    prepared = crops(4).prepare(pixels)
    assert prepared.shape == (4, 32, 32, 3)
    assert set(map(tuple, prepared.reshape(-1, 3))) <= set(map(tuple, pixels.reshape(-1, 3)))


def test_large_images_are_reduced_before_they_are_cropped():
    flat = np.full((1200, 900, 3), 77, dtype=np.uint8)
    model_input = crops(longest_side=300)
    assert model_input.seen_size(900, 1200) == (225, 300)
    assert np.all(model_input.prepare(flat) == 77)


def test_decoded_images_and_their_pixels_give_the_same_crops():
    file = io.BytesIO()
    Image.fromarray(picture(300, 400)).save(file, "JPEG")
    image = decode_image(file.getvalue())
    model_input = crops(longest_side=200)
    assert np.array_equal(model_input.prepare(image), model_input.prepare(image.pixels))


def test_mean_log_odds_of_the_crops_is_the_image():
    log_odds = np.array([[2.0, -1.0, 5.0]])
    fake = 1 / (1 + np.exp(-log_odds))
    probabilities = crops(3).aggregate(np.stack([fake, 1 - fake], axis=2))
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert np.log(probabilities[0, 0] / probabilities[0, 1]) == pytest.approx(2.0)


def test_certain_crops_never_give_nan():
    probabilities = crops(2).aggregate(np.array([[[1.0, 0.0], [0.0, 1.0]]]))
    assert probabilities[0] == pytest.approx([0.5, 0.5])


def test_model_file_keeps_its_input(tmp_path):
    import h5py

    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    model_input = crops(5, longest_side=300)
    metadata = ModelMetadata(("Fake", "Real"), 32, input=model_input.stored())
    write_metadata(path, metadata)
    assert read_metadata(path).model_input == model_input


@pytest.mark.parametrize(
    "stored", [{"kind": "mosaic"}, {"kind": "crops", "crops": 0}, {"kind": "crops", "zoom": 2}]
)
def test_unknown_input_is_refused_in_one_line(tmp_path, stored):
    import h5py

    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_metadata(path, ModelMetadata(("Fake", "Real"), 32, input=stored))
    with pytest.raises(ModelFileError, match="has damaged"):
        read_metadata(path)


@pytest.mark.parametrize("size", [(520, 400), (401, 640), (301, 900)])
def test_crops_of_large_images_are_those_of_the_reduced_image(size):
    noise = np.random.default_rng(2).integers(0, 256, (*size, 3), dtype=np.uint8)
    model_input = ModelInput(32, kind="crops", crops=5, longest_side=256)
    reduced = reduce_to(noise, 256).astype(int)
    places = model_input.places(*reduced.shape[:2], count=5)
    expected = [reduced[t : t + 32, x : x + 32] for t, x in places]
    # The same but for rounding in a few values.
    assert np.abs(model_input.prepare(noise) - np.stack(expected)).max() <= 2


def test_overview_shows_all_of_a_large_image():
    pixels = np.zeros((480, 480, 3), dtype=np.uint8)
    pixels[:240, :240], pixels[:240, 240:], pixels[240:, :240] = 50, 100, 150
    model_input = crops(1, overview=4)
    views, windows = model_input.prepare(pixels), model_input.windows(480, 480)
    assert len(views) == len(windows) == model_input.views == 5
    # The overview has 48 pixels, so that a crop of 32 shows two thirds of each side.
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1)]
    found = [view[corner].mean() for view, corner in zip(views[1:], corners, strict=True)]
    assert found == [50, 100, 150, 0]
    assert np.allclose(windows[1], (0, 0, 2 / 3, 2 / 3))
    assert np.allclose(windows[4], (1 / 3, 1 / 3, 1, 1))


@pytest.mark.parametrize(("height", "width"), [(20, 30), (40, 90), (48, 48)])
def test_small_image_is_its_own_overview(height, width):
    pixels = picture(height, width)
    views = crops(4, overview=4).prepare(pixels)
    assert np.array_equal(views[:4], views[4:])


def test_mirror_image_gains_weight_evenly_below_the_limit():
    first = np.array([[0.9, 0.1], [0.85, 0.15], [0.8, 0.2]])
    mixed = ModelInput(32, mirror_below=0.9).mix_mirrored(first, np.full((3, 2), 0.5))
    found = np.log(mixed[:, 0] / mixed[:, 1]) / np.log(first[:, 0] / first[:, 1])
    np.testing.assert_allclose(found, [1, 0.75, 0.5])


@pytest.mark.parametrize("limit", [-0.1, 1.5, "0.9", float("nan")])
def test_impossible_limit_of_mirroring_is_refused(limit):
    with pytest.raises(InputError, match="mirror_below"):
        ModelInput(32, mirror_below=limit)


def test_crops_are_never_mirrored():
    with pytest.raises(InputError, match="whole images"):
        ModelInput(32, "crops", mirror_below=0.9)


def test_mirroring_survives_storing():
    model_input = ModelInput(32, mirror_below=0.9)
    assert read_model_input(model_input.stored(), size=32) == model_input
