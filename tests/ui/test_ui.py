"""Checks, reports, zips and run files of the app work without a page."""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import io
import json
import re
import sys
import threading
import types
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from app_site import RED, image_bytes, unusual_images
from PIL import Image
from reportlab.pdfbase.ttfonts import TTFont

from real_vs_ai.core.config import SEED
from real_vs_ai.core.images import ImageError
from real_vs_ai.core.messages import languages, read_table
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.perturbations.web_changes import PERTURBATIONS
from real_vs_ai.serving.fake_engine import FakeEngine, fake_detector
from real_vs_ai.serving.judge import Answer, Judge, ServedModel
from real_vs_ai.ui import models_page
from real_vs_ai.ui.check_page import check_image
from real_vs_ai.ui.checking import Card, judge_variants, settle
from real_vs_ai.ui.image_input import open_zip
from real_vs_ai.ui.reports import _BOLD_FONT, _FONT, LINKS, csv_report, json_report, pdf_report
from real_vs_ai.ui.results import count_conclusions, table_row
from real_vs_ai.verdicts.conclusion import ConclusionCode
from real_vs_ai.verdicts.track_record import TrackRecord
from real_vs_ai.verdicts.verdict import CropScore, Reason, ReasonCode, Verdict, make_verdict

METADATA = ModelMetadata(
    ("Fake", "Real"), 32, calibrated=True, lower_threshold=0.3, upper_threshold=0.7
)


TOO_LARGE = Reason(ReasonCode.SIZE, "Much larger.")


def verdict_of(probability_fake: float, metadata: ModelMetadata = METADATA) -> Verdict:
    return make_verdict(np.array([probability_fake, 1 - probability_fake]), metadata)


def card_with(verdict: Verdict, name: str = "a.png") -> Card:
    return Card(Answer(name, verdict, width=4, height=3, format="PNG", sha256="d"))


def card_of(probability_fake: float | None, name: str = "a.png") -> Card:
    if probability_fake is None:
        return Card(Answer(name, error="not an image", sha256="d"))
    return card_with(verdict_of(probability_fake), name)


JUDGE = Judge(fake_detector(FakeEngine(lambda pixels: 0.5), metadata=METADATA))


def test_a_check_writes_nothing_to_disk():
    written = []
    watching = True

    def note_writes(event, args):
        # Files are decoded in threads of their own.
        mine = watching and threading.current_thread().name.startswith(("decode", "MainThread"))
        if event == "open" and mine and isinstance(args[1], str):
            written.extend([args[0]] if set(args[1]) & set("wax+") else [])

    sys.addaudithook(note_writes)
    for data in unusual_images().values():
        check_image("a.png", data, judge=JUDGE)
    watching = False
    assert written == []


def test_failed_preview_is_reported_for_that_image_alone(monkeypatch):
    def fail(image, *, longest_side):
        raise ZeroDivisionError("damaged in an unknown way")

    monkeypatch.setattr("real_vs_ai.ui.check_page.fit_to_screen", fail)
    answer = check_image("a.png", image_bytes(RED), judge=JUDGE).answer
    assert answer.error == "could not be judged: damaged in an unknown way"
    assert answer.verdict is None


# --- verdicts ---


def test_out_of_distribution_image_has_no_number_anywhere():
    verdict = make_verdict(np.array([0.9, 0.1]), METADATA, out_of_distribution=[TOO_LARGE])
    result = card_with(verdict)
    (row,) = csv.DictReader(
        io.StringIO(csv_report([result], metadata=METADATA).decode("utf-8-sig"))
    )
    assert (row["label"], row["probability_fake"], row["confidence"]) == ("Uncertain", "", "")
    assert (row["out_of_distribution"], row["reason"]) == ("true", "size")
    (image,) = json.loads(json_report([result], judge=REPORT_JUDGE, created="now"))["images"]
    assert image["probability_fake"] is None and image["confidence"] is None
    assert image["probabilities"] == {} and image["out_of_distribution"] is True
    text = text_of(pdf_report([result], judge=REPORT_JUDGE, created="now", language="en"))
    assert "Muchlarger." in text and "Probabilities" not in text and "0.9" not in text
    assert "%" not in "".join(map(str, table_row(result, language="en").values()))


@pytest.mark.parametrize("font", [_FONT, _BOLD_FONT])
@pytest.mark.parametrize("language", languages())
def test_fonts_of_the_pdf_have_every_letter_of_the_language(font, language):
    letters = TTFont(font, f"{font}.ttf").face.charToGlyph
    assert {c for c in str(dict(read_table(language))) if ord(c) not in letters} == set()


def test_a_verdict_that_flips_becomes_uncertain_and_says_so():
    judged = settle(card_of(0.9), [("blur", verdict_of(0.5)), ("crop", verdict_of(0.1))])
    assert judged.verdict.label == "Uncertain"
    assert judged.conclusion.code is ConclusionCode.CANT_TELL
    assert "changes after crop." in judged.conclusion.from_model
    assert [(change, v.label) for change, v in judged.variants] == [
        ("no change", "Fake"),
        ("blur", "Uncertain"),
        ("crop", "Real"),
    ]


def test_a_verdict_that_only_weakens_holds():
    judged = settle(card_of(0.9), [("blur", verdict_of(0.5))])
    assert judged.verdict.label == "Fake" and not judged.verdict.reasons


def test_app_changes_a_picture_as_the_model_card_does():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    seen = []
    variants = judge_variants(pixels, judge=lambda copy: seen.append(copy) or verdict_of(0.5))
    tried = [p for p in PERTURBATIONS if p.phrase]
    assert len(variants) == len(seen) == len(tried)
    for copy, perturbation in zip(seen, tried, strict=True):
        assert np.array_equal(copy, perturbation.apply(pixels, seed=SEED)), perturbation.name
    assert len({copy.tobytes() for copy in [pixels, *seen]}) == len(seen) + 1
    assert all(copy.dtype == np.uint8 and copy.shape[2] == 3 for copy in seen)


# The second is too long for a JPEG.
@pytest.mark.parametrize("size", [(1, 1), (2, 70_000)])
def test_pictures_of_odd_sizes_are_changed_too(size):
    pixels = np.zeros((*size, 3), np.uint8)
    assert judge_variants(pixels, judge=lambda copy: verdict_of(0.5))


# --- reports ---

REPORT_MODEL = ServedModel("run <b>", Path("model.h5"), METADATA)
vars(REPORT_MODEL)["sha256"] = "5ba256"
REPORT_JUDGE = types.SimpleNamespace(
    models=(REPORT_MODEL,), metadata=METADATA, model_of=lambda verdict: REPORT_MODEL
)
EVIL_NAME = '=cmd|"x"!A1<script>alert(1)</script>.png'


def test_the_csv_has_the_columns_of_image_scoring_and_no_formulas():
    results = [card_of(0.9, EVIL_NAME), card_of(None, "b.png")]
    text = csv_report(results, metadata=METADATA).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text)))
    promised = "path,label,probability_fake,confidence,width,height,format,provenance,error"
    assert ",".join(rows[0]).startswith(f"{promised},")
    assert rows[0]["path"] == "'" + EVIL_NAME and rows[0]["label"] == "Fake"
    assert float(rows[0]["probability_fake"]) == pytest.approx(0.9)
    assert rows[1]["label"] == "" and rows[1]["error"] == "not an image"


def test_csv_of_other_classes_has_their_probabilities():
    names = ("benign", "malignant", "normal")
    metadata = ModelMetadata(class_names=names, image_size=8)
    verdict = make_verdict(np.array([0.1, 0.7, 0.2]), metadata)
    judged = Card(Answer("a.png", verdict))
    text = csv_report([judged], metadata=metadata).decode("utf-8-sig")
    (row,) = csv.DictReader(io.StringIO(text))
    found = [float(row[f"probability_{name}"]) for name in names]
    assert found == pytest.approx([0.1, 0.7, 0.2])
    assert row["label"] == "malignant"


def test_the_json_says_which_model_with_which_thresholds():
    document = json.loads(json_report([card_of(0.9)], judge=REPORT_JUDGE, created="now"))
    assert document["models"][0]["thresholds"] == {"lower": 0.3, "upper": 0.7}
    assert document["models"][0]["sha256"] == "5ba256"
    assert document["images"][0]["probabilities"]["Fake"] == pytest.approx(0.9)


def test_the_pdf_shows_hostile_names_as_text():
    names = [EVIL_NAME, "<b>&amp;<img src='http://tracker.example/x.png'/>.png", "x" * 5000, ""]
    names += ["фото.png", "图片.png", "שלום.png", "\u202egpj.exe", "\ud800.png", "a\0b"]
    cards = [card_of(0.9, name) for name in names]
    pdf = pdf_report(cards, judge=REPORT_JUDGE, created="now", language="en")
    text = text_of(pdf)
    assert pdf.startswith(b"%PDF-") and b"/JavaScript" not in pdf
    # Nothing from a file becomes a link.
    assert set(re.findall(rb"/URI \(([^)]*)\)", pdf)) == {link.encode() for link in LINKS.values()}
    assert "<script>alert(1)</script>" in text and "run<b>" in text and "&amp;" in text
    # No font here has Hebrew: its letters' numbers stand in their place.
    assert "u05e9" in text and "LooksAI-generated" in text and "10files,now." in text


def test_the_pdf_takes_pictures_of_any_shape_and_a_hundred_of_them():
    shapes = [(640, 1), (1, 640), (1, 1), (640, 640)]
    cards = []
    for size in shapes * 25:
        buffer = io.BytesIO()
        Image.new("RGB", size, RED).save(buffer, format="JPEG")
        cards.append(dataclasses.replace(card_of(0.9), preview=buffer.getvalue()))
    pdf = pdf_report(cards, judge=REPORT_JUDGE, created="now", language="en")
    assert pdf.startswith(b"%PDF-") and pdf.count(b"/Type /Page\n") > 10


def test_the_pdf_names_the_model_and_shows_where_it_looked():
    preview = io.BytesIO()
    Image.new("RGB", (64, 48), RED).save(preview, format="JPEG")
    crops = (CropScore((0, 0, 0.5, 0.5), (0.9, 0.1)), CropScore((0.5, 0.5, 1, 1), (0.6, 0.4)))
    plain = dataclasses.replace(card_of(0.9), preview=preview.getvalue())
    verdict = dataclasses.replace(plain.verdict, crops=crops)
    shown = dataclasses.replace(plain, answer=dataclasses.replace(plain.answer, verdict=verdict))
    pdf = pdf_report([shown], judge=REPORT_JUDGE, created="now", language="en")
    assert "Judgedbyrun<b>(SHA-2565ba256)" in text_of(pdf) and "speakmostfor" in text_of(pdf)
    without = pdf_report([plain], judge=REPORT_JUDGE, created="now", language="en")
    assert pdf.count(b"/Subtype /Image") == without.count(b"/Subtype /Image") + 1


def text_of(pdf: bytes) -> str:
    """The ASCII texts in ReportLab's pages, without spaces, as a line may break anywhere."""
    found = []
    for stream in re.findall(rb"(?<!end)stream\r?\n([!-uz\s]+)~>", pdf):
        with contextlib.suppress(ValueError, zlib.error):
            page = zlib.decompress(base64.a85decode(stream))
            found += re.findall(rb"\(((?:\\.|[^\\)])*)\) Tj", page, re.DOTALL)
    text = re.sub(rb"\\([()\\])", rb"\1", b"".join(found))
    return text.replace(b" ", b"").decode("latin-1")


# --- zips ---


def test_a_zip_is_a_folder_of_pictures():
    data = zip_of({"b/two.png": image_bytes(RED), "a.jpg": b"nope", "__MACOSX/a.jpg": b"x"})
    files = open_zip("all.zip", "7", data)
    assert [file.name for file in files] == ["all.zip/a.jpg", "all.zip/b/two.png"]
    assert [file.getvalue() for file in files] == [b"nope", image_bytes(RED)]
    assert len({file.file_id for file in files}) == 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK no zip", "not a readable zip"),
        (b"PK\x01\x02" * 20_001, "more than 20,000 files"),
        (lambda: zip_of({"notes.txt": b"x"}), "without pictures"),
        (lambda: zip_of({f"{i}.png": bytes(2**20) for i in range(3)}), "of pictures"),
    ],
)
def test_a_zip_that_cannot_be_taken_says_why(data, reason, monkeypatch):
    monkeypatch.setattr("real_vs_ai.ui.image_input.MAX_TOTAL_BYTES", 2 * 2**20)
    (file,) = open_zip("a.zip", "7", data if isinstance(data, bytes) else data())
    with pytest.raises(ImageError, match=reason):
        file.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# --- the batch ---


def test_conclusions_are_counted_in_the_order_of_their_codes():
    cards = [card_of(p) for p in (0.1, 0.5, 0.9, None, 0.9)]
    counts = count_conclusions(cards)
    assert list(counts) == [
        "Looks AI-generated",
        "We can't tell",
        "No sign of AI found",
        "Unreadable",
    ]
    assert counts["Looks AI-generated"].startswith("**2** :red[")


# --- run files ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"test": 3}',
        '{"test": {"conditions": [], "weakest": {"generators": "none"}}}',
        '{"test": {"conditions": {"clean": {"generated": {"found": "most"}}}}}',
        f'{{"test": {{"uncertain_share": {10**400}}}}}',
    ],
)
def test_damaged_metrics_give_none(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    assert models_page.read_record(RunFolder(tmp_path)) == TrackRecord()
