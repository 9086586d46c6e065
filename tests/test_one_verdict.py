"""One image gets one verdict from library, command line, app and service, and in the report."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin
from starlette.testclient import TestClient

import ImageScoring
import ModelEvaluation
from real_vs_ai import Detector
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.service.access import Limits
from real_vs_ai.service.application import create_application
from real_vs_ai.service.judging import LocalJudge
from real_vs_ai.serving.judge import Judge
from real_vs_ai.serving.score_table import COLUMNS, LAST_COLUMNS
from real_vs_ai.ui.check_page import check_image
from real_vs_ai.ui.reports import csv_report
from real_vs_ai.verdicts.predictions import read_predictions
from tests.ui.app_site import BLUE, GREY, RED, encode, image_bytes, make_colour_model


def odd_images() -> dict[str, bytes]:
    """Images by name, of every kind that is easily treated in two ways."""
    red = Image.new("RGB", (32, 32), RED)
    two_colours = Image.new("RGB", (32, 24), BLUE)
    two_colours.paste(RED, (0, 0, 32, 6))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    settings = PngImagePlugin.PngInfo()
    settings.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    deep = Image.fromarray(np.full((32, 32), 40_000, dtype=np.uint16))
    return {
        "animated.gif": encode(red, "GIF", save_all=True, append_images=[two_colours]),
        "blue.png": image_bytes(BLUE, size=(32, 32)),
        "broken.png": b"no image",
        "cmyk.jpg": encode(two_colours.convert("CMYK"), "JPEG"),
        "deep.png": encode(deep, "PNG"),
        "empty.jpg": b"",
        "generated.png": encode(two_colours, "PNG", pnginfo=settings),
        "grey.png": image_bytes(GREY, size=(32, 32)),
        "huge.png": image_bytes(RED, size=(900, 900)),
        "palette.png": encode(two_colours.convert("P"), "PNG"),
        "red.png": image_bytes(RED, size=(32, 32)),
        "rotated.jpg": encode(two_colours, "JPEG", exif=exif.tobytes()),
        "transparent.png": encode(Image.new("RGBA", (32, 32), (*RED, 90)), "PNG"),
        "truncated.jpg": encode(two_colours, "JPEG")[:-40],
    }


IMAGES = odd_images()
UNREADABLE = {"broken.png", "empty.jpg", "truncated.jpg"}
SHARED_COLUMNS = (*list(COLUMNS)[1:], *LAST_COLUMNS)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    return make_colour_model(
        tmp_path_factory.mktemp("one") / "colour",
        calibrated=True,
        lower_threshold=0.3,
        upper_threshold=0.7,
        training_images=summarise_training_images([32] * 9, [32] * 9, ["small"] * 9),
    )


def read_rows(text: str) -> list[dict[str, str]]:
    """The shared columns of a CSV, in the order of the images."""
    rows = sorted(csv.DictReader(io.StringIO(text)), key=lambda row: row["path"])
    return [{name: row[name] for name in SHARED_COLUMNS} for row in rows]


def rows_of_command_line(model_path, folder) -> list[dict[str, str]]:
    for name, data in IMAGES.items():
        (folder / name).write_bytes(data)
    output = folder / "scores.csv"
    names = [str(folder / name) for name in IMAGES]
    assert ImageScoring.main([*names, "--model", str(model_path), "--output", str(output)]) == 0
    return read_rows(output.read_text(encoding="utf-8"))


def rows_of_app(model_path) -> list[dict[str, str]]:
    judge = Judge(model_path)
    cards = [check_image(name, data, judge=judge) for name, data in IMAGES.items()]
    return read_rows(csv_report(cards, metadata=judge.metadata).decode("utf-8-sig"))


def rows_of_service(model_path) -> list[dict[str, str]]:
    limits = Limits()
    judge = LocalJudge(model_path, limits=limits)
    judge.detector()
    files = [("files", (name, data)) for name, data in IMAGES.items()]
    with TestClient(create_application(judge, limits=limits, keys=None)) as client:
        images = client.post("/v1/images", files=files).json()["images"]
    judge.close()
    for image in images:
        image["provenance"] = " ".join(finding["sentence"] for finding in image["provenance"])
    rows = [{name: image[name] for name in SHARED_COLUMNS} for image in images]
    return [{name: as_text(value) for name, value in row.items()} for row in rows]


def report_of(model_path, folder) -> dict[str, tuple[str, str]]:
    """Verdict and reason in the report of the same images, by name."""
    for label in ("Fake", "Real"):
        (folder / "test" / label).mkdir(parents=True)
        for name, data in IMAGES.items():
            (folder / "test" / label / name).write_bytes(data)
    arguments = ["--model", str(model_path), "--data", str(folder), "--output", str(folder / "out")]
    assert ModelEvaluation.main(arguments) == 0
    rows = read_predictions(folder / "out" / "predictions.csv")
    by_name = {}
    for path, verdict, reason in zip(rows.paths, rows.verdicts, rows.reasons, strict=True):
        by_name.setdefault(Path(path).name, set()).add((verdict, reason))
    assert all(len(found) == 1 for found in by_name.values())
    return {name: found.pop() for name, found in by_name.items()}


def as_text(value: object) -> str:
    """As a CSV spells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def rounded(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """With numbers to three decimals: single images and batches differ beyond the fifth."""
    return [
        {
            name: f"{float(text):.3f}"
            if text and name in ("probability_fake", "confidence")
            else text
            for name, text in row.items()
        }
        for row in rows
    ]


@pytest.mark.usefixtures("blank_figures")
def test_library_command_line_app_service_and_report_agree(model_path, tmp_path):
    by_command_line = rows_of_command_line(model_path, tmp_path)
    labels = dict(zip(IMAGES, [row["label"] for row in by_command_line], strict=True))
    assert {name for name, label in labels.items() if not label} == UNREADABLE
    assert [labels[f"{name}.png"] for name in ("blue", "grey", "red")] == [
        "Real",
        "Uncertain",
        "Fake",
    ]
    reasons = dict(zip(IMAGES, [row["reason"] for row in by_command_line], strict=True))
    assert (reasons["huge.png"], reasons["grey.png"]) == ("size", "between_thresholds")
    concluded = dict(zip(IMAGES, [row["conclusion"] for row in by_command_line], strict=True))
    assert concluded["generated.png"] == "labelled_ai" and labels["generated.png"] == "Real"
    assert (concluded["blue.png"], concluded["red.png"]) == ("looks_photograph", "looks_ai")
    assert (concluded["huge.png"], concluded["grey.png"]) == ("cant_judge", "cant_tell")
    assert rounded(rows_of_app(model_path)) == rounded(by_command_line)
    assert rounded(rows_of_service(model_path)) == rounded(by_command_line)

    reported = report_of(model_path, tmp_path / "report")
    verdicts = {
        n: (row["label"], row["reason"]) for n, row in zip(IMAGES, by_command_line, strict=True)
    }
    assert reported == {name: found for name, found in verdicts.items() if found[0]}

    detector = Detector.open(model_path)
    readable = [data for name, data in IMAGES.items() if name not in UNREADABLE]
    rows = [row for row in by_command_line if row["label"]]
    for row, verdict in zip(rows, detector.predict_batch(readable), strict=True):
        assert row["label"] == verdict.label
        assert row["out_of_distribution"] == str(verdict.out_of_distribution).lower()
        assert row["reason"] == (verdict.reasons[0].code if verdict.reasons else "")
