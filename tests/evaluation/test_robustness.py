"""Perturbations do what their names say, and the table counts what they do to verdicts."""

import dataclasses
import weakref

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.images import decode_image, open_image
from real_vs_ai.dataset.labelled_images import list_labelled_images
from real_vs_ai.evaluation.extras import (
    _mean_auc,
    describe_perturbations,
    keep_extras,
    measure_collections,
    measure_robustness,
)
from real_vs_ai.evaluation.judging import JudgedSplit, judge_changed, judge_split, open_detector
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.model_input import ModelInput
from real_vs_ai.perturbations.web_changes import HARD, PERTURBATIONS, WEB
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.judge import Answer
from real_vs_ai.verdicts.verdict import Verdict
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


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("robust") / "test"
    write_images(folder, n=15, wrong=3, size=16)
    (folder / "Fake" / "broken.png").write_bytes(b"")
    return list_labelled_images(folder)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.h5"
    colour_model().save(path)
    return open_detector(path, METADATA)


def measure(images, detector, workers=1, **thresholds):
    detector = detector.with_metadata(dataclasses.replace(METADATA, **thresholds))
    judged = judge_split(detector, images, split="test", workers=workers)
    return measure_robustness(detector, judged, workers=workers)


def test_colour_model_keeps_its_verdicts_in_every_change(images, detector):
    found = measure(images, detector)
    assert (found["split"], found["n"]) == ("test", 30)
    # So they are distinct.
    assert [row["name"] for row in found["rows"]] == ["unchanged", *BY_NAME]
    first = found["rows"][0]
    assert first["accuracy"]["value"] == pytest.approx(24 / 30)
    assert (first["flips"], first["uncertain"]) == (0, 0)
    # Every change, and the two ways of the web by their short names.
    conditions = found["conditions"]
    assert {"web", "hard", "JPEG quality 75"} <= set(conditions)
    assert len(conditions) == len(BY_NAME)
    assert conditions["hard"]["generated"]["found"]["value"] == pytest.approx(12 / 15)
    assert conditions["web"]["real"]["accused"]["value"] == pytest.approx(3 / 15)
    # Mean colour survives recompression, resizing, blur and noise.
    assert max(row["flips"] for row in found["rows"]) == 0


def test_verdicts_given_up_are_counted_apart_from_turned_ones(images, detector):
    found = measure(images, detector, lower_threshold=0.0, upper_threshold=1.0)
    assert {(row["flips"], row["uncertain"]) for row in found["rows"]} == {(0, 30)}


def test_changes_to_sizes_that_the_model_does_not_know_leave_the_verdict_uncertain(
    images, detector
):
    scale = {"low": 16.0, "median": 16.0, "high": 16.0}
    found = {
        r["name"]: r for r in measure(images, detector, training_images={"scale": scale})["rows"]
    }
    assert (found["unchanged"]["uncertain"], found["resized × 2"]["uncertain"]) == (0, 30)
    assert found["resized × 2"]["accuracy"]["value"] == pytest.approx(24 / 30)


def test_turned_verdicts_are_counted(images, detector, monkeypatch):
    swap = dataclasses.replace(
        PERTURBATIONS[0], name="swapped", apply=lambda pixels, seed: pixels[..., ::-1]
    )
    monkeypatch.setattr("real_vs_ai.evaluation.extras.PERTURBATIONS", (swap,))
    _, swapped = measure(images, detector)["rows"]
    assert swapped["flips"] == 30
    assert swapped["accuracy"]["value"] == pytest.approx(6 / 30)


def test_workers_and_chunks_change_nothing(images, detector, monkeypatch):
    alone = measure(images, detector)
    monkeypatch.setattr("real_vs_ai.evaluation.judging._MOST_TOGETHER", 4)
    assert measure(images, detector, workers=2) == alone


def test_no_picture_is_held_while_the_network_judges(tmp_path, monkeypatch):
    """A hundred photographs and their changed copies would take gigabytes."""
    write_images(tmp_path / "test", n=6, size=40)
    colour_model().save(tmp_path / "model.h5")
    seen = ModelInput(size=SIZE, kind="crops", crops=2)
    detector = open_detector(
        tmp_path / "model.h5", dataclasses.replace(METADATA, input=seen.stored())
    )
    alive, made, held = {}, [], []

    def watch(pixels):
        made.append(id(pixels))
        alive[id(pixels)] = weakref.finalize(pixels, alive.pop, id(pixels), None)
        return pixels

    def judge(looks, **options):
        held.append(len(alive))
        return Detector.judge(detector, looks, **options)

    monkeypatch.setattr(
        "real_vs_ai.evaluation.judging.decode_image", lambda path: watch(decode_image(path))
    )
    monkeypatch.setattr(detector, "judge", judge)
    changes = [
        dataclasses.replace(
            one, apply=lambda some, seed, one=one: watch(one.apply(some, seed=seed))
        )
        for one in (WEB, HARD)
    ]
    images = list_labelled_images(tmp_path / "test")
    judge_changed(detector, images, changes, split="test", workers=2)
    assert len(made) == 3 * len(images)
    assert set(held) == {0}


def test_sample_keeps_the_shares_of_the_classes(images):
    sample = images.take(images.draw(10))
    assert sample.counts == {"Fake": 5, "Real": 5}
    assert sample.paths == tuple(sorted(sample.paths))
    assert images.take(images.draw(10)).paths == sample.paths
    assert images.draw(1000).tolist() == list(range(len(images)))


@pytest.mark.parametrize(
    ("attribute", "value"), [("PERTURBATIONS", PERTURBATIONS[:-1]), ("PERTURBATIONS_VERSION", -1)]
)
def test_table_of_other_perturbations_is_not_kept(monkeypatch, attribute, value):
    calibration = {"temperature": 1.0, "thresholds": {}, "data": {}}
    stored = {"perturbations": describe_perturbations(), "rows": []}

    def kept():
        metrics = dict(calibration)
        keep_extras(metrics, {**calibration, "robustness": stored}, split="test")
        return "robustness" in metrics

    assert kept()
    monkeypatch.setattr(f"real_vs_ai.evaluation.extras.{attribute}", value)
    assert not kept()


class RedJudge:
    """Says Fake of red pictures, and nothing of those smaller than 600 pixels."""

    metadata = METADATA
    inputs_of_an_image = 1

    def prepare(self, image):
        return getattr(image, "pixels", image)

    def judge(self, images):
        return [self.verdict(pixels) for pixels in images]

    def verdict(self, pixels):
        fake = 0.9 if pixels[..., 0].mean() > pixels[..., 2].mean() else 0.1
        label = "Uncertain" if max(pixels.shape[:2]) < 600 else ("Fake" if fake > 0.5 else "Real")
        return Verdict(label, fake, max(fake, 1 - fake), {}, uncalibrated=(fake, 1 - fake))


def judge_as_they_are(images, detector):
    answers = [
        Answer(path, detector.verdict(open_image(images.root / path)), width=700, height=700)
        for path in images.paths
    ]
    return JudgedSplit("test", images, tuple(answers), ())


def test_collections_are_counted_clean_and_after_the_web(tmp_path):
    write_images(tmp_path / "test", n=6, size=700, wrong=1)
    lines = [f"test/Fake/first__{i:03}.png,first,Maker 7" for i in range(1, 6, 2)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,source,generator", *lines]) + "\n")
    judge = RedJudge()
    judged = judge_as_they_are(list_labelled_images(tmp_path / "test"), judge)
    found = measure_collections(judge, judged, workers=2)
    assert found["n"] == 12
    clean, web, hard = (found["versions"][name] for name in ("clean", "web", "hard"))
    rows = {(row["class"], row["name"]): row for row in clean["collections"]}
    # The last picture of each class has the other's colour: number 5, of the first source.
    assert rows["Real", "first"]["fake"]["value"] == pytest.approx(1 / 3)
    assert rows["Real", "second"]["fake"]["value"] == 0 < rows["Real", "second"]["fake"]["high"]
    assert clean["overall"]["worst_real"]["name"] == "first"
    assert clean["overall"]["coverage"]["value"] == 1
    pooled = clean["overall"]["pooled_auc"]
    assert pooled["low"] <= pooled["value"] <= pooled["high"]
    assert clean["overall"]["certain_wrong"]["value"] == pytest.approx(2 / 12)
    assert [row["name"] for row in clean["generators"]] == ["Maker 7"]
    assert web["overall"]["coverage"]["value"] == 1
    assert hard["overall"]["coverage"]["value"] == 0
    # Forced, the answers that the small copies do not get are right all the same.
    assert set(found["conditions"]) == {"web", "hard"}
    balanced = found["conditions"]["hard"]["balanced_accuracy"]
    assert set(balanced) == {"forced"} and balanced["forced"]["value"] == pytest.approx(5 / 6)
    assert found["conditions"]["web"]["generated"]["called_real"]["value"] == pytest.approx(1 / 6)
    assert hard["overall"]["worst_real"] is None


def test_mean_area_weighs_each_source_of_the_other_class_alike():
    scores = np.array([0.9, 0.8, 0.7, 0.95, 0.1])
    sources = np.array(["own", "own", "a", "b", "a"], dtype=object)
    own = sources == "own"
    found = _mean_auc(scores, own, ~own, sources)
    # Against a: 1; against b: 0.
    assert found["value"] == pytest.approx(0.5)
    assert 0 <= found["low"] <= 0.5 <= found["high"] <= 1
