"""Training views are random crops with histories, repeatable, and alike for all classes."""

import io

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.images import decode_image
from real_vs_ai.dataset.decoded_images import decode_images
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.dataset.views import ViewOptions, draw_views
from real_vs_ai.models.model_input import ModelInput

CROPS = ModelInput(32, kind="crops", crops=4)


def picture(height=90, width=120, file_format="PNG", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return decode_image(file.getvalue())


def views(image, count=6, history=1.0, seed=1, name="a.png", **options):
    return draw_views(image, CROPS, ViewOptions(count, history, seed, **options), name=name)


def is_part_of(view, pixels):
    size = view.shape[0]
    rows, columns = pixels.shape[0] - size + 1, pixels.shape[1] - size + 1
    return any(
        np.array_equal(pixels[top : top + size, left : left + size], view)
        for top in range(rows)
        for left in range(columns)
    )


def test_views_without_history_are_pixels_of_the_picture():
    image = picture()
    for view in views(image, history=0.0):
        assert is_part_of(view, image.pixels) or is_part_of(view[:, ::-1], image.pixels)


def test_histories_change_most_views():
    image = picture()
    changed = [
        not (is_part_of(view, image.pixels) or is_part_of(view[:, ::-1], image.pixels))
        for view in views(image, count=12)
    ]
    assert sum(changed) >= 6


def test_screenshots_smooth_the_finest_detail_and_change_nothing_else():
    image = picture(200, 300)

    def detail(**options):
        found = views(image, count=40, **options).astype(np.float32)
        return np.abs(np.diff(found, axis=2)).mean(axis=(1, 2, 3))

    plain, shown = detail(), detail(screenshots=1.0)
    # Noise that a screen shows larger varies less from pixel to pixel.
    assert np.median(shown) < 0.9 * np.median(plain)
    assert np.array_equal(views(image, history=0.0), views(image, history=0.0, screenshots=1.0))


def test_encoded_views_carry_traces_whatever_the_format_was():
    image = picture(100, 100, seed=3)

    def untouched(**options):
        # A part that was neither encoded nor resampled is found in the picture.
        found = views(image, count=20, **options)
        return sum(
            is_part_of(v, image.pixels) or is_part_of(v[:, ::-1], image.pixels) for v in found
        )

    assert untouched(encoded=0.0) > untouched(encoded=1.0) == 0


def test_encoding_first_leaves_jpegs_as_they_came():
    image = picture(file_format="JPEG")
    assert np.array_equal(views(image, encoded=0.0), views(image, encoded=1.0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 40), (33, 31), (400, 900)])
def test_pictures_of_any_size_give_views(height, width):
    found = views(picture(height, width), count=8)
    assert found.shape == (8, 32, 32, 3)
    assert found.dtype == np.uint8


def spans_of_views(count, **model_input):
    """Of a picture that brightens from left to right, the range of each view, 0 to 255."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 400).astype(np.uint8), (300, 1)))
    file = io.BytesIO()
    ramp.convert("RGB").save(file, "PNG")
    image, seen = (
        decode_image(file.getvalue()),
        ModelInput(32, kind="crops", crops=4, **model_input),
    )
    drawn = draw_views(image, seen, ViewOptions(count, 0.0, 1), name="a")
    return np.ptp(drawn.reshape(count, -1), axis=1)


def test_views_of_the_overview_show_more_of_the_picture():
    spans = spans_of_views(60, overview=4)
    # A crop at native resolution spans 32 of 400 columns; one of the overview at least 150.
    assert set(spans > 60) == {True, False}
    assert 0.3 < np.mean(spans > 60) < 0.7
    assert spans[spans <= 60].max() <= 25


def test_views_depend_on_seed_and_name_alone():
    image = picture()
    assert np.array_equal(views(image), views(image))
    assert not np.array_equal(views(image), views(image, seed=2))
    assert not np.array_equal(views(image), views(image, name="b.png"))


def write_images(folder):
    for name in ("Fake", "Real"):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            picture(seed=i).image.save(folder / name / f"{i}.png")


def test_cached_views_are_those_that_were_drawn(tmp_path):
    write_images(tmp_path / "train")
    images = list_labelled_images(tmp_path / "train")

    def decode(**options):
        return decode_images(
            images,
            model_input=CROPS,
            workers=1,
            max_memory_bytes=2**30,
            cache_dir=tmp_path / "cache",
            **options,
        )

    drawn = decode(views=ViewOptions(3, 1.0, 7))
    again = decode(views=ViewOptions(3, 1.0, 7))
    other = decode(views=ViewOptions(3, 0.0, 7))
    own = decode()
    assert drawn.pixels.shape == (6, 3, 32, 32, 3)
    assert np.array_equal(drawn.pixels, again.pixels)
    assert not np.array_equal(drawn.pixels, other.pixels)
    assert own.pixels.shape == (6, 4, 32, 32, 3)


def test_epochs_go_through_the_views_of_each_image(tmp_path):
    from real_vs_ai.training.batches import training_batches
    from real_vs_ai.training.devices import ALONE

    write_images(tmp_path / "train")
    decoded = decode_images(
        list_labelled_images(tmp_path / "train"),
        model_input=CROPS,
        workers=1,
        max_memory_bytes=2**30,
        views=ViewOptions(3, 0.5, 7),
    )
    batches = training_batches(
        decoded,
        batch_size=6,
        steps_per_epoch=1,
        first_step=0,
        seed=1,
        augmentation="none",
        degrade=0.0,
        hosts=ALONE,
    )
    seen = np.concatenate([images.numpy() for images, _ in batches.take(3)]).astype(np.uint8)
    assert {view.tobytes() for view in seen} == {view.tobytes() for view in decoded.inputs}
