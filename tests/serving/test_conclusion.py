"""What the file says and what the model sees become one conclusion, as the docs' table has it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from real_vs_ai.core.messages import Message
from real_vs_ai.provenance import Camera, Code, FileSays, Finding, Seal, describe_origin
from real_vs_ai.provenance.findings import describe_input
from real_vs_ai.verdicts.conclusion import (
    CONCLUSIONS,
    NEXT_STEPS,
    TITLES,
    ConclusionCode,
    ModelSees,
    conclude,
)
from real_vs_ai.verdicts.track_record import Condition, TrackRecord
from real_vs_ai.verdicts.verdict import Reason, ReasonCode, Verdict

DOCS = Path(__file__).resolve().parents[2] / "docs" / "provenance.md"
MADE = Finding(
    Code.GENERATOR, "generator", "It names Krea.", "Fake", "made with Krea", generator="Krea"
)
PART = replace(MADE, code=Code.COMPOSITE, claim="composed with a generative model's output")
TAKEN = Finding(
    Code.CAMERA, "EXIF", "A camera.", "Real", "taken with a camera (X1)", camera=Camera("", "X1")
)
CAPTURED = Finding(Code.CAPTURED, "IPTC", "A capture.", "Real", "a photograph")
CHANGED = Finding(Code.CREDENTIALS, "C2PA", "The seal is broken.", forgery="", seal=Seal.CHANGED)
DOUBTFUL = replace(TAKEN, camera=Camera("", "X1", doubts=("It was resized.",)))
FILES = {
    FileSays.AI_SIGNED: [replace(MADE, seal=Seal.TRUSTED)],
    FileSays.AI: [MADE],
    FileSays.PART_AI: [PART],
    FileSays.POSSIBLY_AI: [Finding(Code.POSSIBLY_GENERATED, "label", "Possibly made by AI.")],
    FileSays.CONTRADICTION: [MADE, TAKEN],
    FileSays.CAPTURED: [CAPTURED],
    FileSays.CAMERA: [TAKEN],
    FileSays.CAMERA_DOUBTFUL: [DOUBTFUL],
    FileSays.SCREENSHOT: [Finding(Code.SCREENSHOT, "EXIF", "A screenshot.")],
    FileSays.SEAL_CHANGED: [CHANGED],
    FileSays.SEAL_UNREADABLE: [replace(CHANGED, seal=Seal.UNREADABLE)],
    FileSays.NOTHING: [],
}
NO_SIGN = Reason(ReasonCode.BETWEEN_THRESHOLDS, "No clear sign.")
VERDICTS = {
    ModelSees.AI: Verdict("Fake", 0.97, 0.97, {"Fake": 0.97, "Real": 0.03}),
    ModelSees.PHOTOGRAPH: Verdict("Real", 0.03, 0.97, {"Fake": 0.03, "Real": 0.97}),
    ModelSees.OTHER_CLASS: Verdict("cat", None, 0.9, {"cat": 0.9, "dog": 0.1}),
    ModelSees.NO_CLEAR_SIGN: Verdict("Uncertain", 0.5, 0.5, {"Fake": 0.5, "Real": 0.5}, (NO_SIGN,)),
    ModelSees.NOT_JUDGED: Verdict(
        "Uncertain", None, None, {}, (Reason(ReasonCode.PLAIN, "Probably a document."),)
    ),
}


def documented_conclusions() -> dict[str, dict[str, str]]:
    """The table of the docs: conclusions by what the file says and what the model sees."""
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    start = next(n for n, line in enumerate(lines) if "`no_clear_sign`" in line)
    columns = re.findall(r"`(\w+)`", lines[start])
    rows = (re.findall(r"`(\w+)`", line) for line in lines[start + 2 :][: len(FileSays)])
    return {name: dict(zip(columns, codes, strict=True)) for name, *codes in rows}


@pytest.mark.parametrize("says", FileSays)
@pytest.mark.parametrize("sees", ModelSees)
def test_conclusion_of_every_pair_is_the_documented_one(says, sees):
    found = conclude(VERDICTS[sees], FILES[says])
    assert (found.file_says, found.model_sees) == (says, sees)
    assert found.code == documented_conclusions()[says][sees]
    assert found.sentence and (found.from_file or says is FileSays.NOTHING)


@pytest.mark.parametrize("says", FileSays)
@pytest.mark.parametrize("sees", ModelSees)
def test_neither_side_hides_the_other(says, sees):
    found = conclude(VERDICTS[sees], FILES[says])
    alone = conclude(VERDICTS[sees], [])
    assert found.from_model == alone.from_model and found.from_model in found.sentence
    for finding in FILES[says]:
        told = finding.claim or finding.text
        assert told in found.sentence


def test_every_conclusion_has_words_and_is_reached():
    reached = {code for row in CONCLUSIONS.values() for code in row.values()}
    assert reached | {ConclusionCode.UNREADABLE} == set(ConclusionCode)
    assert set(TITLES) == set(NEXT_STEPS) == set(ConclusionCode)
    assert len(set(TITLES.values())) == len(TITLES)


def test_changed_seal_takes_the_weight_from_camera_data_and_leaves_it_to_a_label():
    assert describe_origin([CHANGED, TAKEN]).says is FileSays.SEAL_CHANGED
    found = conclude(VERDICTS[ModelSees.PHOTOGRAPH], [CHANGED, TAKEN])
    assert found.code is ConclusionCode.LOOKS_PHOTOGRAPH and "seal is broken" in found.sentence
    labelled = conclude(VERDICTS[ModelSees.NO_CLEAR_SIGN], [CHANGED, MADE])
    assert labelled.code is ConclusionCode.LABELLED_AI and "seal is broken" in labelled.sentence


def test_only_a_trusted_signer_makes_a_label_signed():
    for seal in (Seal.UNKNOWN_SIGNER, Seal.IRREGULAR):
        found = conclude(VERDICTS[ModelSees.AI], [replace(MADE, seal=seal)])
        assert found.code is ConclusionCode.LABELLED_AI


def test_photograph_with_a_generated_part_does_not_contradict_itself():
    found = conclude(VERDICTS[ModelSees.PHOTOGRAPH], [PART, TAKEN])
    assert found.code is ConclusionCode.LABELLED_PART_AI


def test_label_comes_with_generator_edit_history_and_ingredients():
    seal = replace(
        CHANGED,
        seal=Seal.UNKNOWN_SIGNER,
        actions=("created", "cropped"),
        ingredients=("parentOf old boat.jpg",),
    )
    found = conclude(VERDICTS[ModelSees.AI], [seal, replace(MADE, model="krea-1")])
    assert found.generator == "Krea, krea-1"
    assert (found.history, found.ingredients) == (seal.actions, seal.ingredients)
    assert "history: created, cropped." in found.from_file
    assert "Made with: old boat.jpg." in found.from_file


def record(*, found: float) -> TrackRecord:
    return TrackRecord(conditions=(Condition("clean", found=found, passed=0.03, accused=0.002),))


@pytest.mark.parametrize(("found", "code"), [(0.4, "labelled_ai"), (0.9, "disagree")])
def test_label_with_a_tools_name_outweighs_a_model_that_misses_most(found, code):
    verdict = replace(VERDICTS[ModelSees.PHOTOGRAPH], record=record(found=found))
    concluded = conclude(verdict, [MADE])
    assert concluded.code == code
    # The model's doubt stands below.
    assert "found no sign of AI. Of 100 AI pictures" in concluded.from_model
    assert conclude(verdict, [replace(MADE, generator="")]).code is ConclusionCode.DISAGREE


def test_first_sentence_of_the_file_names_the_tool():
    label = replace(MADE, code=Code.GENERATED, claim="made by a generative model", generator="")
    other = replace(MADE, generator="Midjourney", claim="")
    found = conclude(VERDICTS[ModelSees.AI], [label, other])
    assert "Midjourney" in found.file_sentences[0]
    assert conclude(VERDICTS[ModelSees.AI], [MADE]).file_sentences[0].endswith("made with Krea.")


def test_picture_made_from_another_says_so():
    made_from = describe_input("img2img", kind="generator", field="parameters")
    found = conclude(VERDICTS[ModelSees.AI], [MADE, *made_from])
    assert "It was made from another picture (img2img)." in found.file_sentences
    assert found.code is ConclusionCode.LABELLED_AI


@pytest.mark.parametrize("camera", [[], [TAKEN]])
def test_picture_of_which_a_part_was_painted_over_is_partly_ai(camera):
    painted = describe_input("inpaint", kind="generator", field="parameters")
    found = conclude(VERDICTS[ModelSees.PHOTOGRAPH], [MADE, *painted, *camera])
    assert (found.file_says, found.code) == (FileSays.PART_AI, ConclusionCode.LABELLED_PART_AI)
    assert "A part of another picture was painted over by a generator" in found.from_file


def test_label_of_a_trusted_signer_stays_signed_where_a_part_was_painted_over():
    painted = describe_input("inpaint", kind="generator", field="parameters")
    signed = replace(MADE, seal=Seal.TRUSTED)
    found = conclude(VERDICTS[ModelSees.PHOTOGRAPH], [signed, *painted])
    assert found.code is ConclusionCode.LABELLED_AI_SIGNED


def test_each_answer_of_the_model_has_its_own_rate_and_a_refusal_has_none():
    told = {
        sees: conclude(replace(verdict, record=record(found=0.4)), []).from_model
        for sees, verdict in VERDICTS.items()
    }
    assert told[ModelSees.AI].endswith("Of 100 photographs it accuses fewer than 1.")
    assert "finds about 40 and lets about 3 pass" in told[ModelSees.PHOTOGRAPH]
    for sees in (ModelSees.NO_CLEAR_SIGN, ModelSees.NOT_JUDGED, ModelSees.OTHER_CLASS):
        assert "100" not in told[sees]


def test_flat_picture_is_not_sent_to_look_for_credentials():
    plain = Reason(ReasonCode.PLAIN, "Flat.")
    found = conclude(replace(VERDICTS[ModelSees.NOT_JUDGED], reasons=(plain,)), [])
    assert found.code is ConclusionCode.CANT_JUDGE and len(found.next_steps) == 1
    assert "credentials" not in found.next_steps[0]


def test_other_class_is_named_and_an_unreadable_file_says_why():
    assert conclude(VERDICTS[ModelSees.OTHER_CLASS], []).title == "Looks like cat"
    broken = conclude(None, [], "the file is empty")
    assert (broken.code, broken.sentence) == (ConclusionCode.UNREADABLE, "The file is empty.")


@pytest.mark.parametrize(("key", "steps"), [("error.pdf", 0), ("error.truncated", 0), ("x", 1)])
def test_another_copy_is_advised_only_where_the_reason_says_nothing_else(key, steps):
    error = Message("error.damaged", reason="x") if key == "x" else Message(key)
    assert len(conclude(None, [], error).next_steps) == steps


def test_no_text_of_an_open_answer_holds_a_number_of_the_model():
    found = conclude(VERDICTS[ModelSees.NO_CLEAR_SIGN], [])
    assert found.sentence == "No clear sign." and len(found.next_steps) == 3
    assert "%" not in " ".join([found.title, found.sentence, *found.next_steps])
