"""One image gets one verdict from the library, the command line and the app."""

from __future__ import annotations

import csv
import io

import pytest
from app_site import BLUE, GREY, RED, image_bytes, make_colour_model

import ImageScoring
from real_vs_ai import Detector
from real_vs_ai.out_of_distribution import summarise_training_images
from real_vs_ai.serving.score_table import COLUMNS, REASON_COLUMNS
from real_vs_ai.ui.checking import content_digest, name_duplicates
from real_vs_ai.ui.judging import judge_upload
from real_vs_ai.ui.model_service import ModelService
from real_vs_ai.ui.reports import csv_report

IMAGES = {
    "blue.png": image_bytes(BLUE, size=(32, 32)),
    "broken.png": b"no image",
    "grey.png": image_bytes(GREY, size=(32, 32)),
    "huge.png": image_bytes(RED, size=(900, 900)),
    "red.png": image_bytes(RED, size=(32, 32)),
}
SHARED_COLUMNS = (*list(COLUMNS)[1:4], *REASON_COLUMNS)


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
    service = ModelService(model_path)
    checks = [
        (name, service.check(data, digest=content_digest(data))) for name, data in IMAGES.items()
    ]
    service.close()
    metadata = service.metadata
    judged = [
        judge_upload(upload, variants=(), model=metadata, chosen=metadata)
        for upload in name_duplicates(checks)
    ]
    return read_rows(csv_report(judged, metadata=metadata).decode("utf-8-sig"))


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


def test_library_command_line_and_app_agree(model_path, tmp_path):
    by_command_line = rows_of_command_line(model_path, tmp_path)
    assert [row["label"] for row in by_command_line] == [
        "Real",
        "",
        "Uncertain",
        "Uncertain",
        "Fake",
    ]
    codes = [row["reason"] for row in by_command_line]
    assert codes == ["", "", "between_thresholds", "size", ""]
    assert rounded(rows_of_app(model_path)) == rounded(by_command_line)

    detector = Detector.open(model_path)
    readable = [data for name, data in IMAGES.items() if name != "broken.png"]
    rows = [row for row in by_command_line if row["label"]]
    for row, verdict in zip(rows, detector.predict_batch(readable), strict=True):
        assert row["label"] == verdict.label
        assert row["out_of_distribution"] == str(verdict.out_of_distribution).lower()
        assert row["reason"] == (verdict.reasons[0].code if verdict.reasons else "")
