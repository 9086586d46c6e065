"""The files of the released model belong together, and it does what its card says.

Some tests need real images; REAL_VS_AI_SHARED names their folder.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai import Detector
from real_vs_ai.models.model_file import read_metadata
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.preparation.demo import load_photographs
from real_vs_ai.ui.image_input import EXAMPLE_FILES
from real_vs_ai.verdicts.predictions import read_predictions
from tests.serving.trivial_model import judge_inputs

ROOT = Path(__file__).resolve().parents[1]
RUN = RunFolder(ROOT / "models" / "released")
PHOTOGRAPHS = RunFolder(RUN.path / "photographs")
SHARED_DATA = Path(os.environ.get("REAL_VS_AI_SHARED", ROOT.parent / "shared")) / "data"
# The best published ResNet101 at 32 pixels reaches 0.9509.
LEAST_ACCURACY = 0.985
# By how much changes of the images may lower the accuracy.
MOST_LOST = {
    "JPEG quality 75": 0.03,
    "resized × 0.5": 0.03,
    "resized × 2": 0.04,
    "centre 75 %": 0.04,
}
MOST_BYTES = 95_000_000


@pytest.fixture(scope="module")
def metrics() -> dict:
    return json.loads(RUN.metrics.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.open(RUN.path, engine="openvino", precision="f32")


@pytest.fixture(scope="module")
def crops() -> list[np.ndarray]:
    """Pieces of photographs at the size that the model learnt from."""
    random = np.random.default_rng(5)
    pieces = []
    for photograph in load_photographs().values():
        for _ in range(8):
            y, x = (int(random.integers(0, side - 32)) for side in photograph.shape[:2])
            pieces.append(np.ascontiguousarray(photograph[y : y + 32, x : x + 32]))
    return pieces


def read_images(archive: Path, pattern: str, *, every: int = 1) -> dict[str, list[bytes]]:
    """Images of an archive by class, from the member names that a pattern with two groups fits."""
    if not archive.is_file():
        pytest.skip(f"real images are not there: {archive}")
    images: dict[str, list[bytes]] = {"Fake": [], "Real": []}
    with zipfile.ZipFile(archive) as members:
        for name in sorted(members.namelist())[::every]:
            if found := re.search(pattern, name):
                images["Fake" if "fake" in found.group(1).lower() else "Real"].append(
                    members.read(name)
                )
    return images


def test_released_files_are_complete_and_small_enough():
    for path in (RUN.model, RUN.metrics, RUN.model_card, RUN.config, RUN.history, RUN.predictions):
        assert path.is_file(), path
    figures = {path.name for path in RUN.figures.iterdir()}
    assert {"history.png", "confusion_matrix.png", "roc.png", "reliability.png"} <= figures
    # The training images are not the project's to give away.
    assert "mistakes.png" not in figures
    assert RUN.model.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("run", [RUN, PHOTOGRAPHS], ids=lambda run: run.name)
def test_released_model_names_no_machine(run):
    for path in (run.metrics, run.model_card, run.config):
        assert not re.search(r'["\s(](/|[A-Z]:\\)\w', path.read_text(encoding="utf-8")), path
    assert "/" not in json.loads(run.config.read_text(encoding="utf-8"))["options"]["data"]


def test_card_and_metrics_agree_and_reach_the_aim(metrics):
    accuracy = metrics["test"]["accuracy"]
    assert accuracy["low"] < accuracy["value"] < accuracy["high"]
    assert accuracy["value"] >= LEAST_ACCURACY
    metadata = read_metadata(RUN.model)
    assert metadata.backbone == metrics["backbone"] == "resnet101"
    assert metadata.calibrated
    assert metadata.metrics["accuracy"]["value"] == pytest.approx(accuracy["value"])
    card = RUN.model_card.read_text(encoding="utf-8")
    assert f"{accuracy['value']:.4f}" in card
    assert "Images of another kind" in card
    assert "JPEG quality 75" in card


def test_released_model_stands_common_changes_of_images(metrics):
    found = {row["name"]: row["accuracy"]["value"] for row in metrics["robustness"]["rows"]}
    for name, most in MOST_LOST.items():
        assert found[name] >= found["unchanged"] - most, name


def test_released_model_keeps_its_promise_on_other_images(metrics):
    for part in metrics["other_images"]:
        assert part["certain_wrong"]["value"] <= 0.10
    assert metrics["out_of_distribution"]["test"]["share"] <= 0.05


@pytest.mark.slow
def test_plain_keras_reads_it(released_in_keras):
    modules = {type(layer).__module__ for layer in released_in_keras.layers}
    assert all(module.startswith("keras.") for module in modules)
    assert released_in_keras.inputs[0].shape == (None, 32, 32, 3)
    assert released_in_keras.outputs[0].shape == (None, 2)
    assert {weight.dtype for weight in released_in_keras.weights} == {"float32"}


@pytest.mark.slow
def test_engines_agree_on_it(detector, released_keras_detector, crops):
    # Three of Keras' batches: it would be traced again for a smaller one.
    pixels = np.stack([detector.prepare(crop).inputs for crop in crops[:96]])
    expected = judge_inputs(released_keras_detector, pixels)[0]
    found = judge_inputs(detector.detectors[0], pixels)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_released_model_is_the_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Detector.open(None).detectors[0].model_path.samefile(RUN.model)


def test_small_model_refuses_large_photographs_with_a_reason():
    small = Detector.open(RUN.model, engine="openvino", precision="f32")
    for photograph in load_photographs().values():
        verdict = small.predict(photograph)
        assert verdict.label == "Uncertain"
        assert "yours is" in verdict.out_of_distribution_reason.sentence


def test_photographs_reach_their_model_and_are_not_called_generated(detector):
    verdicts = [detector.predict(photograph) for photograph in load_photographs().values()]
    assert {verdict.model for verdict in verdicts} == {"released/photographs"}
    labels = [verdict.label for verdict in verdicts]
    assert "Fake" not in labels and labels.count("Real") >= 2


def test_photograph_model_is_small_and_its_card_names_weaknesses():
    assert PHOTOGRAPHS.model.stat().st_size < 25_000_000
    card = PHOTOGRAPHS.model_card.read_text(encoding="utf-8")
    metrics = json.loads(PHOTOGRAPHS.metrics.read_text(encoding="utf-8"))
    overall = metrics["collections"][0]["versions"]["clean"]["overall"]
    worst = [overall[name]["name"] for name in ("worst_real", "worst_generator")]
    for part in (*worst, "hard", "wrong, 95 % of sources"):
        assert part in card


def test_photograph_model_keeps_its_promise_on_repositories_it_has_not_seen():
    metrics = json.loads(PHOTOGRAPHS.metrics.read_text(encoding="utf-8"))
    assert metrics["thresholds"]["target_error"] == 0.02
    for row in (row for rows in metrics["over_sources"].values() for row in rows):
        assert row["sources"] >= 50
        assert row["wrong"]["value"] <= {"Real": 0.02, "Fake": 0.04}[row["class"]]
    rows = read_predictions(PHOTOGRAPHS.predictions).of_split("test")
    certain = rows.decided >= 0
    assert certain.mean() >= 0.3
    assert np.mean(rows.decided[certain] != rows.labels[certain]) <= 0.04


def test_photograph_model_seldom_calls_unseen_portraits_generated():
    rows = read_predictions(PHOTOGRAPHS.predictions)
    portraits = np.isin(rows.sources, ["unsplash-men", "celebrity-portraits", "face-test-reals"])
    assert portraits.sum() > 200
    assert np.mean(rows.verdicts[portraits] == "Fake") <= 0.02


@pytest.mark.slow
def test_held_back_images_are_judged_as_the_card_says(detector, metrics):
    images = read_images(SHARED_DATA / "cifake.zip", r"test/(FAKE|REAL)/.*\.jpg$", every=20)
    right, out_of_distribution, n = 0, 0, 0
    for label, files in images.items():
        verdicts = detector.predict_batch(files)
        right += sum((v.uncalibrated[0] > 0.5) == (label == "Fake") for v in verdicts)
        out_of_distribution += sum(v.out_of_distribution for v in verdicts)
        n += len(files)
    assert n > 450
    # 500 images: the standard error of the accuracy is about 0.008.
    assert right / n > metrics["test"]["accuracy"]["value"] - 0.02
    assert out_of_distribution / n <= 0.05


def test_newer_generators_seldom_get_a_confident_wrong_verdict(detector):
    archive = SHARED_DATA / "fake-or-real-sample.zip"
    images = read_images(archive, r"(fake|real)_images/.*\.(?:jpe?g|png)$")
    wrong = [
        label
        for label, files in images.items()
        for verdict in detector.predict_batch(files)
        if verdict.label not in (label, "Uncertain")
    ]
    n = sum(map(len, images.values()))
    assert n >= 50
    assert len(wrong) <= 0.10 * n


def test_examples_of_the_app_show_four_conclusions(detector):
    judged = [(file.label, detector.predict(file.getvalue()).label) for file in EXAMPLE_FILES]
    assert judged == [("Fake", "Fake"), ("Fake", "Fake"), ("Real", "Real"), ("Real", "Uncertain")]
