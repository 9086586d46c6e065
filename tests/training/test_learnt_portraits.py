"""A run learns which sources are portraits, and its model refuses such pictures everywhere."""

import numpy as np
import pytest
from PIL import Image
from small_runs import train

from real_vs_ai.predictions import read_predictions
from real_vs_ai.runs import find_models
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdict import ReasonCode

pytestmark = pytest.mark.usefixtures("tiny", "blank_figures")

OF_CROPS = ("--image-size", "32", "--set", "input=crops", "crops=4", "views=2")
PORTRAITS = ("--set", "portraits=faces")


def face(seed):
    """A bright disc on the right third of a dark picture of noise, which no crop shows whole."""
    pixels = np.random.default_rng(seed).normal(60, 30, (90, 90, 3))
    y, x = np.mgrid[:90, :90]
    pixels[(y - 45) ** 2 + (x - 45) ** 2 < 1200] += 150
    return pixels.clip(0, 255).astype(np.uint8)


def scene(seed):
    return np.random.default_rng(seed).normal(110, 40, (90, 90, 3)).clip(0, 255).astype(np.uint8)


def write_pictures(data):
    for folder, offset, count in (("train", 0, 24), ("validation", 500, 60), ("test", 800, 24)):
        for label in ("Fake", "Real"):
            for path in (data / folder / label).iterdir():
                path.unlink()
            for i in range(count):
                seed = offset + 2 * i + (label == "Real")
                portrait = i % 3 == 0
                source = "faces" if portrait else f"scenes-{label}"
                picture = (face if portrait else scene)(seed)
                Image.fromarray(picture).save(data / folder / label / f"{source}__{i:03}.png")


@pytest.fixture
def run(parse, data, tmp_path):
    write_pictures(data)
    argv = (*OF_CROPS, *PORTRAITS, "--epochs", "1", "--set", "pooling=stages", "--run-name", "run")
    train(parse(*argv))
    return tmp_path / "models" / "run"


def test_report_and_detector_refuse_the_same_portraits(run, data):
    rows = read_predictions(run / "predictions.csv")
    portraits = rows.reasons == ReasonCode.PORTRAIT
    assert portraits[rows.sources == "faces"].mean() > 0.8
    assert portraits[rows.sources != "faces"].mean() < 0.2
    detector = Detector.open(find_models(run)[0], engine="openvino", precision="f32")
    test = rows.of_split("test")
    verdicts = [detector.predict(data / path) for path in test.paths]
    assert [verdict.label for verdict in verdicts] == test.verdicts.tolist()
    codes = [verdict.reasons[0].code if verdict.reasons else "" for verdict in verdicts]
    assert codes == test.reasons.tolist()


def test_without_other_real_pictures_nothing_is_learnt(parse, data, tmp_path):
    write_pictures(data)
    train(parse(*OF_CROPS, "--set portraits=faces,scenes-Real --epochs 1 --run-name run"))
    rows = read_predictions(tmp_path / "models" / "run" / "predictions.csv")
    assert not np.any(rows.reasons == ReasonCode.PORTRAIT)


def test_portraits_are_only_found_beside_crops(parse, capsys):
    with pytest.raises(SystemExit):
        parse(*PORTRAITS)
    assert "portraits needs input crops" in capsys.readouterr().err
