"""Perturbations and the table of what they do to verdicts."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.extras import add_robustness
from real_vs_ai.evaluation.robustness import describe_perturbations, measure_robustness
from real_vs_ai.files import write_json
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.perturbations import PERTURBATIONS
from real_vs_ai.runs import RunFolder
from tests.evaluation.evaluation_material import SIZE, colour_model, write_images

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=SIZE)
BY_NAME = {perturbation.name: perturbation for perturbation in PERTURBATIONS}


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (40, 60)])
@pytest.mark.parametrize("name", BY_NAME)
def test_every_change_gives_an_image_whatever_its_size(name, size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    original = pixels.copy()
    changed = BY_NAME[name].apply(pixels, seed=1)
    assert changed.dtype == np.uint8
    assert changed.ndim == 3
    assert changed.shape[2] == 3
    assert min(changed.shape[:2]) >= 1
    assert np.array_equal(pixels, original)
    assert np.array_equal(changed, BY_NAME[name].apply(pixels, seed=1))


def test_changes_do_what_their_names_say():
    pixels = np.random.default_rng(0).integers(60, 180, (40, 60, 3), dtype=np.uint8)
    change = {name: BY_NAME[name].apply(pixels, seed=1).astype(float) for name in BY_NAME}
    assert change["resized × 0.5"].shape == (20, 30, 3)
    assert change["resized × 2"].shape == (80, 120, 3)
    assert np.array_equal(change["centre 75 %"], pixels[5:35, 7:52])
    assert change["blur, σ 1 px"].std() < 0.5 * pixels.std()
    assert np.std(change["noise, σ 8 of 255"] - pixels) == pytest.approx(8, rel=0.05)
    assert change["brightness × 0.75"].mean() == pytest.approx(0.75 * pixels.mean(), rel=0.01)
    losses = [
        np.abs(change[f"JPEG quality {quality}"] - pixels).mean() for quality in (95, 75, 50, 30)
    ]
    assert losses == sorted(losses)


def test_resizing_is_antialiased_bilinear():
    """The model card, the app and training mean the same by "resized × 0.5"."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((30, 20), Image.Resampling.BILINEAR)
    assert np.array_equal(BY_NAME["resized × 0.5"].apply(pixels, seed=1), np.asarray(expected))


@pytest.mark.parametrize("name", ["JPEG quality 75", "WebP quality 80"])
def test_image_too_long_for_a_format_is_reduced_first(name):
    pixels = np.zeros((1, 66_000, 3), dtype=np.uint8)
    assert BY_NAME[name].apply(pixels, seed=1).shape[1] < 66_000


def test_perturbation_names_are_distinct():
    assert len(BY_NAME) == len(PERTURBATIONS)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust") / "test"
    write_images(folder, n=15, wrong=3, size=16)
    (folder / "Fake" / "broken.png").write_bytes(b"")
    return list_labelled_images(folder)


def measure(images, **options):
    options = {"metadata": METADATA, "workers": 1, "max_images": 100, **options}
    return measure_robustness(colour_model(), images, split="test", **options)


def test_colour_model_keeps_its_verdicts_in_every_change(images):
    found = measure(images)
    assert (found["split"], found["n"]) == ("test", 30)
    assert [row["name"] for row in found["rows"]] == ["unchanged", *BY_NAME]
    first = found["rows"][0]
    assert first["accuracy"]["value"] == pytest.approx(24 / 30)
    assert (first["flips"], first["uncertain"]) == (0, 0)
    # Mean colour survives recompression, resizing, blur and noise.
    assert max(row["flips"] for row in found["rows"]) == 0


def test_verdicts_given_up_are_counted_apart_from_turned_ones(images):
    metadata = dataclasses.replace(METADATA, lower_threshold=0.0, upper_threshold=1.0)
    found = measure(images, metadata=metadata)
    assert {(row["flips"], row["uncertain"]) for row in found["rows"]} == {(0, 30)}


def test_turned_verdicts_are_counted(images, monkeypatch):
    swap = dataclasses.replace(
        PERTURBATIONS[0], name="swapped", change=lambda pixels, seed: pixels[..., ::-1]
    )
    monkeypatch.setattr("real_vs_ai.evaluation.robustness.PERTURBATIONS", (swap,))
    _, swapped = measure(images)["rows"]
    assert swapped["flips"] == 30
    assert swapped["accuracy"]["value"] == pytest.approx(6 / 30)


def test_workers_and_chunks_change_nothing(images, monkeypatch):
    alone = measure(images)
    monkeypatch.setattr("real_vs_ai.evaluation.robustness._CHUNK_BYTES", 30_000)
    assert measure(images, workers=2) == alone


def test_sample_keeps_the_shares_of_the_classes(images):
    sample = images.take(images.draw(10))
    assert sample.counts == {"Fake": 5, "Real": 5}
    assert sample.paths == tuple(sorted(sample.paths))
    assert images.take(images.draw(10)).paths == sample.paths
    assert images.draw(1000).tolist() == list(range(len(images)))


@pytest.mark.parametrize(
    ("attribute", "value"), [("PERTURBATIONS", PERTURBATIONS[:-1]), ("PERTURBATIONS_VERSION", -1)]
)
def test_table_of_other_perturbations_is_not_kept(tmp_path, monkeypatch, attribute, value):
    calibration = {"temperature": 1.0, "thresholds": {}, "data": {}}
    stored = {"perturbations": describe_perturbations(), "rows": []}
    report = RunFolder(tmp_path)
    write_json(report.metrics, {**calibration, "robustness": stored})

    def kept():
        evaluation = SimpleNamespace(metrics=dict(calibration))
        options = SimpleNamespace(robustness=False)
        add_robustness(evaluation, options=options, scorer=None, decoded={}, report=report)
        return "robustness" in evaluation.metrics

    assert kept()
    monkeypatch.setattr(f"real_vs_ai.evaluation.robustness.{attribute}", value)
    assert not kept()
