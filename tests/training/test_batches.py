"""Batches show every image once an epoch, and the same seed and step give the same batch."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from real_vs_ai.dataset.decoded_images import decode_images
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.models.model_input import ModelInput
from real_vs_ai.perturbations.warps import STANDARD_RANGES, draw_affine, warp
from real_vs_ai.training.batches import (
    AUGMENTATIONS,
    batch_indices,
    degrade_images,
    draw_changes,
    draw_degradations,
    draw_patches,
    evaluation_batches,
    exchange_patches,
    training_batches,
    warp_images,
)
from real_vs_ai.training.compilation import WarmedPolynomialDecay
from real_vs_ai.training.devices import ALONE, Hosts


@pytest.fixture
def decoded(data):
    images = list_labelled_images(data / "train")
    return decode_images(images, model_input=ModelInput(32), workers=1, max_memory_bytes=2**30)


def batches(
    decoded,
    *,
    first_step=0,
    count=4,
    augmentation="none",
    degrade=0.0,
    cutmix=0.0,
    hosts=ALONE,
    seed=3,
):
    dataset = training_batches(
        decoded,
        batch_size=8,
        steps_per_epoch=6,
        first_step=first_step,
        seed=seed,
        augmentation=augmentation,
        degrade=degrade,
        cutmix=cutmix,
        hosts=hosts,
    )
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def test_each_epoch_shows_every_image_once_in_a_new_order():
    def epoch(number):
        steps = range(number * 6, number * 6 + 6)
        options = {"batch_size": 8, "steps_per_epoch": 6, "seed": 1}
        return np.concatenate([batch_indices(48, step=step, **options) for step in steps])

    assert sorted(epoch(0)) == sorted(epoch(1)) == list(range(48))
    assert epoch(0).tolist() != epoch(1).tolist()


def test_extra_steps_repeat_the_images_in_a_new_order():
    options = {"batch_size": 5, "steps_per_epoch": 100, "seed": 1}
    first, second = (
        np.concatenate([batch_indices(10, step=step, **options) for step in steps])
        for steps in ((0, 1), (2, 3))
    )
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()


def test_images_are_drawn_as_often_as_their_weights_say():
    weights = np.repeat([1.0, 4.0], [30, 10])
    options = {"batch_size": 50, "steps_per_epoch": 9, "seed": 1, "draw_by": weights}
    drawn = [batch_indices(40, step=step, **options) for step in range(40)]
    shares = np.bincount(np.concatenate(drawn), minlength=40) / 2000
    # Forty of the seventy parts of the weight are the last ten images'.
    assert shares[30:].sum() == pytest.approx(40 / 70, abs=0.04)
    np.testing.assert_array_equal(drawn[3], batch_indices(40, step=3, **options))
    assert drawn[3].tolist() != drawn[4].tolist()


def test_an_image_drawn_again_within_an_epoch_shows_another_view(decoded):
    pixels = np.broadcast_to(
        np.arange(5, dtype=np.uint8)[None, :, None, None, None],
        (len(decoded), 5, *decoded.pixels.shape[2:]),
    )
    dataset = training_batches(
        replace(decoded, pixels=pixels),
        batch_size=1,
        steps_per_epoch=10,
        first_step=0,
        seed=3,
        augmentation="none",
        degrade=0.0,
        hosts=ALONE,
        draw_by=np.eye(len(decoded))[7],
    )
    shown = [int(images[0, 0, 0, 0]) for images, _ in dataset.take(5)]
    assert sorted(shown) == [0, 1, 2, 3, 4]


def test_labels_stay_with_their_images(decoded):
    for images, labels in batches(decoded):
        reddish = images[..., 0].mean(axis=(1, 2)) > images[..., 2].mean(axis=(1, 2))
        np.testing.assert_array_equal(labels, np.stack([reddish, ~reddish], axis=1))


@pytest.mark.parametrize("augmentation", sorted(AUGMENTATIONS))
def test_a_batch_depends_on_seed_and_step_alone(decoded, augmentation):
    changes = {"augmentation": augmentation, "degrade": 0.5, "cutmix": 0.5}
    undisturbed = batches(decoded, **changes)
    resumed = batches(decoded, **changes, first_step=2, count=2)
    for (a, one), (b, other) in zip(undisturbed[2:], resumed, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one, other)
    other = batches(decoded, augmentation=augmentation, seed=4, count=1)
    assert not np.array_equal(other[0][0], undisturbed[0][0])


@pytest.mark.parametrize(("augmentation", "degrade"), [("none", 0.0), ("standard", 0.5)])
def test_processes_share_out_each_batch(decoded, augmentation, degrade):
    options = {"augmentation": augmentation, "degrade": degrade, "cutmix": degrade}
    whole = batches(decoded, **options)
    parts = [batches(decoded, hosts=Hosts(index, 2), **options) for index in range(2)]
    for i, (images, labels) in enumerate(whole):
        for index, part in enumerate(parts):
            np.testing.assert_array_equal(part[i][0], images[4 * index : 4 * index + 4])
            np.testing.assert_array_equal(part[i][1], labels[4 * index : 4 * index + 4])


def test_degrading_changes_about_its_share_of_the_images_and_no_labels(decoded):
    plain = batches(decoded, count=12)
    degraded = batches(decoded, count=12, degrade=0.5)
    changed = [
        np.any(a != b)
        for (x, _), (y, _) in zip(plain, degraded, strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert 0.35 < np.mean(changed) < 0.65
    for (_, a), (_, b) in zip(plain, degraded, strict=True):
        np.testing.assert_array_equal(a, b)


# Every pixel's first value says its column, its second one its row.
RAMP = np.linspace(0, 255, 32)
PICTURE = np.stack(
    [np.tile(RAMP, (32, 1)), np.tile(RAMP[:, None], (1, 32)), np.full((32, 32), 90)], axis=-1
).astype(np.uint8)


def degraded_pictures(*, count=90):
    pixels = np.stack([PICTURE] * count)
    degraded = degrade_images(pixels, draw_degradations(count, seed=(1, 2)), share=1.0)
    np.testing.assert_array_equal(pixels, np.stack([PICTURE] * count))
    return degraded.astype(float)


def shown_shares(degraded):
    """The share of the picture's width and height that each image shows, shape (n, 2)."""
    columns = degraded[:, :, -2:, 0].mean(axis=(1, 2)) - degraded[:, :, :2, 0].mean(axis=(1, 2))
    rows = degraded[:, -2:, :, 1].mean(axis=(1, 2)) - degraded[:, :2, :, 1].mean(axis=(1, 2))
    return np.stack([columns, rows], axis=1) / (RAMP[-2:].mean() - RAMP[:2].mean())


def test_degraded_images_keep_what_they_show_or_a_part_of_it():
    degraded = degraded_pictures()
    shares = shown_shares(degraded)
    cropped = shares[:, 0] < 0.92
    # Two of eight are cropped; the weakest crops count as whole here.
    assert 0.1 < cropped.mean() < 0.35
    assert 0.55 < shares.min() < 0.75
    np.testing.assert_allclose(shares[cropped, 0], shares[cropped, 1], atol=0.06)
    difference = np.abs(degraded - PICTURE).mean(axis=(1, 2, 3))
    assert np.mean(difference > 0) > 0.9
    assert np.all(difference[~cropped] < 16)
    assert len(np.unique(difference)) > 45


def test_crops_come_from_every_part_of_an_image():
    degraded = degraded_pictures()
    cropped = shown_shares(degraded)[:, 0] < 0.85
    centres = degraded[cropped][..., :2].mean(axis=(1, 2)) - RAMP.mean()
    assert centres.min(axis=0).max() < -10
    assert centres.max(axis=0).min() > 10


def test_pairs_exchange_a_patch_and_its_share_of_the_labels():
    pixels = np.zeros((41, 32, 32, 3), np.uint8)
    pixels[1::2] = 200
    labels = np.eye(2, dtype=np.float32)[np.arange(41) % 2]
    draws = draw_patches(41, seed=(1, 2))
    mixed, shares = exchange_patches(pixels, labels, draws, share=0.6)
    assert pixels[0].max() == 0 and labels.max(axis=1).min() == 1
    # The label says how much of the picture comes from which class.
    np.testing.assert_allclose(shares[:, 1], mixed.mean(axis=(1, 2, 3)) / 200, atol=1e-6)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(mixed[40], pixels[40])
    exchanged = shares[:40:2, 1] > 0
    assert 0.3 < exchanged.mean() < 0.9
    assert len(np.unique(shares[:40:2, 1][exchanged])) > 5
    # What one of a pair gives, the other one takes.
    np.testing.assert_allclose(shares[0:40:2, 1], shares[1:40:2, 0])
    one = mixed[np.flatnonzero(exchanged)[0] * 2, :, :, 0] > 0
    rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
    assert one[np.ix_(rows, columns)].all() and len(rows) == len(columns)


def test_evaluation_gives_every_image_once_in_order_unchanged(decoded):
    def images(hosts):
        dataset = evaluation_batches(decoded, batch_size=7, hosts=hosts)
        return np.concatenate([x.numpy() for x, _ in dataset])

    np.testing.assert_array_equal(images(ALONE), decoded.inputs)
    shares = [images(Hosts(index, 5)) for index in range(5)]
    assert {len(share) for share in shares} == {10}
    np.testing.assert_array_equal(np.concatenate(shares)[:48], decoded.inputs)


def test_evaluation_weighs_images_by_their_class_where_training_does(decoded):
    weights = np.array([0.5, 2.0])[decoded.labels]
    batches = evaluation_batches(decoded, batch_size=7, hosts=ALONE, weights=weights)
    found = np.concatenate([weight.numpy() for _, _, weight in batches])
    np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize("draws", [(0, 0.5, -0.25, 0, 0, 0, 1), (0, -0.5, 0.75, 0, 0, 0, -1)])
def test_warp_of_a_batch_is_that_of_copies_on_disk(draws):
    """A shift by whole pixels and a mirroring: every pixel keeps its value, edges are repeated."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    affine = draw_affine(STANDARD_RANGES, width=20, height=20, draws=draws)
    transforms = tf.constant([[*affine.reshape(-1), 0.0, 0.0]], tf.float32)
    found = warp_images(tf.constant(pixels[None], tf.float32), transforms).numpy()[0]
    np.testing.assert_allclose(found, warp(pixels, affine), atol=1e-3)


def test_light_augmentation_moves_pixels_and_blurs_none():
    images = np.random.default_rng(0).permutation(16 * 32 * 32 * 3).astype(np.float32)
    images = images.reshape(16, 32, 32, 3)
    changes = draw_changes(16, AUGMENTATIONS["light"], size=32, seed=[1, 2])
    changed = warp_images(tf.constant(images), changes).numpy()
    for before, after in zip(images, changed, strict=True):
        # A mean of two neighbours is seldom one of the values that the image itself has.
        assert np.isin(np.round(after), before).mean() > 0.999
    assert not np.array_equal(changed, images)


def test_learning_rate_rises_during_warm_up_then_falls_as_usual():
    schedule, plain = (
        WarmedPolynomialDecay(0.1, 100, end_learning_rate=0.001, warmup_steps=steps)
        for steps in (10, 0)
    )
    rates = [float(schedule(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == pytest.approx([float(plain(step)) for step in range(10, 101)])
    assert rates[-1] == pytest.approx(0.001)


def test_keras_generator_changes_images_by_the_seed_and_the_step_alone():
    from real_vs_ai.training.batches import draw_seeds, warp_by_keras

    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    before = pixels.copy()
    seeds = draw_seeds(4, (1, 2))
    changed = warp_by_keras(pixels, seeds=seeds)
    assert (changed.dtype, changed.shape) == (np.uint8, pixels.shape)
    assert np.array_equal(pixels, before)
    assert all((one != other).any() for one, other in zip(changed, pixels, strict=True))
    # A part of the batch, as another process makes it.
    assert np.array_equal(warp_by_keras(pixels[2:], seeds=seeds[2:]), changed[2:])
    assert not np.array_equal(draw_seeds(4, (1, 3)), seeds)
