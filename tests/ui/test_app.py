"""A user of the app gets conclusions, evidence and messages (AppTest, with the real detector)."""

from __future__ import annotations

import io
import re
import shutil
import string
import sys
import zipfile

import pytest
from app_driver import TIMEOUT_S, button, shown_texts, start, upload, verdicts
from app_site import APP, BLUE, GREY, RED, encode, image_bytes, make_colour_model, unusual_images
from PIL import ExifTags, Image, PngImagePlugin
from streamlit.testing.v1 import AppTest

from real_vs_ai.core.messages import read_table
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.serving.detector import Detector
from real_vs_ai.ui import check_page, image_input, results

pytestmark = pytest.mark.usefixtures("surroundings")


def test_each_conclusion_has_words_and_both_lines_of_evidence(models):
    app = upload(
        start("--models-dir", models),
        {"red.png": image_bytes(RED), "blue.png": image_bytes(BLUE), "g.png": image_bytes(GREY)},
    )
    red, blue, grey = verdicts(app)
    assert "Looks AI-generated" in red and "No sign of AI found" in blue
    assert "We can't tell" in grey
    texts = shown_texts(app)
    assert texts.count("**What the file says**") == texts.count("**What the model sees**") == 3
    assert [texts.count(f"**1** :{colour}[") for colour in ("red", "blue", "orange")] == [1, 1, 1]


def test_no_icon_stands_where_a_screen_reader_would_read_its_name(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    assert ":material/" not in shown_texts(app)
    assert not [tab.label for tab in app.tabs if ":material/" in tab.label]


def test_next_steps_say_one_thing_first_and_where_to_search_on_request(models):
    app = upload(start("--models-dir", models), {"g.png": image_bytes(GREY)})
    (first,) = [part.value for part in app.markdown if "What now?" in part.value]
    assert "original file" in first and "](https" not in first
    (more,) = [part.value for part in app.expander[0].markdown]
    links = re.findall(r"\]\((https://[^)]+)\)", more)
    assert len(links) == 5 and more.count("upload it there yourself") == 1
    # An address with a query could carry the picture, or its address, away.
    assert not [link for link in links if "?" in link]


def test_the_first_page_says_what_the_model_finds_and_who_sees_the_picture(models):
    texts = shown_texts(start("--models-dir", models))
    assert "Of 100 AI pictures the model finds about 40 and lets about 5 pass" in texts
    assert "of 100 photographs it accuses about 2" in texts
    assert "**Who sees my pictures?** Nobody but you" in texts and "Ctrl+V" in texts


@pytest.mark.parametrize("number", [1, 2, 14])
def test_results_of_any_number_say_who_sees_them(models, number):
    files = {f"{i}.png": image_bytes((200, i, 20)) for i in range(number)}
    texts = shown_texts(upload(start("--models-dir", models), files))
    assert texts.count("**Who sees my pictures?** Nobody but you") == 1


def english_words(texts: str) -> set[str]:
    """The pieces of English sentences, between their fields, that stand in these texts."""
    entries = (one if isinstance(one, str) else one["other"] for one in read_table("en").values())
    pieces = (piece for one in entries for piece, *_ in string.Formatter().parse(one))
    return {piece for piece in pieces if len(piece.split()) > 1 and piece.strip() in texts}


def test_page_speaks_the_language_of_the_browser(models, monkeypatch):
    monkeypatch.setattr("streamlit.runtime.context.ContextProxy.locale", "de-AT")
    app = start("--models-dir", models)
    assert app.title[0].value == "Ist dieses Bild KI-generiert?"
    assert not english_words(shown_texts(app))
    labelled = encode(Image.new("RGB", (64, 64), RED), "PNG", pnginfo=parameters())
    camera = Image.Exif()
    camera[ExifTags.Base.Make], camera[ExifTags.Base.Model] = "NIKON", "D750"
    files = {
        "labelled.png": labelled,
        "camera.jpg": encode(Image.new("RGB", (64, 64), BLUE), "JPEG", exif=camera),
        "grey.png": image_bytes(GREY),
        "no.pdf": b"%PDF-1.7",
        "empty.png": b"",
        "cut.png": image_bytes(RED)[:60],
    }
    for one in files:
        upload(app, {one: files[one]})
        assert not english_words(shown_texts(app)), one
    upload(app, files)
    assert not english_words(shown_texts(app))
    assert "Als KI-generiert gekennzeichnet" in verdicts(app)[0]
    assert "Nicht zu entscheiden" in verdicts(app)[2]
    assert "Leere Datei" in shown_texts(app)


def parameters() -> PngImagePlugin.PngInfo:
    """A label, and the settings of a generator's run."""
    held = PngImagePlugin.PngInfo()
    held.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    return held


def test_pasted_picture_is_told_that_labels_were_dropped(models):
    name = f"{image_input.PASTED_NAME} 1.png"
    app = upload(start("--models-dir", models), {name: image_bytes(RED)})
    assert "Pasting drops the labels" in shown_texts(app)
    assert "Pasting drops" not in shown_texts(upload(app, {"a.png": image_bytes(RED)}))


def test_model_of_other_classes_shows_them_and_is_called_uncalibrated(models):
    app = start("--models-dir", models, "--model", models / "three")
    assert app.selectbox(key="model").value == "three"
    upload(app, {"red.png": image_bytes(RED)})
    assert "Not calibrated" in shown_texts(app)
    upload(app, {"red.png": image_bytes(RED), "blue.png": image_bytes(BLUE)})
    assert "malignant" in verdicts(app)[0] and "benign" in verdicts(app)[1]


def test_picture_that_is_not_judged_says_why_and_offers_no_test_of_an_answer(tmp_path):
    make_colour_model(
        tmp_path / "models" / "small",
        calibrated=True,
        training_images=summarise_training_images([32] * 9, [32] * 9, ["small"] * 9),
        lower_threshold=0.4,
        upper_threshold=0.6,
    )
    app = start()
    assert "only pictures of about 32 × 32 pixels" in shown_texts(app)
    upload(app, {"huge.png": image_bytes(RED, size=(900, 900))})
    assert "can't judge" in verdicts(app)[0]
    texts = shown_texts(app)
    assert "yours is 900 × 900" in texts and "out-of-distribution" in texts
    assert "%" not in texts and "Of 100" not in texts
    assert [tab.label for tab in app.tabs] == ["Details"]


def test_a_zip_is_checked_like_its_pictures_and_a_pdf_is_refused(models):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, colour in (("red.png", RED), ("blue.png", BLUE)):
            archive.writestr(name, image_bytes(colour))
    files = {"all.zip": buffer.getvalue(), "empty.zip": b"no zip", "paper.pdf": b"%PDF-1.7 ..."}
    app = upload(start("--models-dir", models), files)
    titles = ("No sign of AI found", "Looks AI-generated", "Unreadable", "Unreadable")
    assert [title in shown for title, shown in zip(titles, verdicts(app), strict=True)] == [
        True
    ] * 4
    texts = shown_texts(app)
    assert "Not a readable zip" in texts and "A PDF, not a picture" in texts
    app.run()
    assert len(verdicts(app)) == 4 and not app.exception


def test_every_unusual_kind_of_image_gets_a_verdict(models):
    app = upload(start("--models-dir", models), unusual_images())
    assert len(verdicts(app)) == len(unusual_images())
    texts = shown_texts(app)
    assert "first frame was used" in texts and "laid over white" in texts
    assert "Turned upright" in texts and "20 × 40 pixels" in texts


def test_picture_of_any_shape_gets_a_card_with_a_preview(models):
    shapes = [(20_000, 10), (10, 20_000), (1, 20_000), (500, 1), (1, 1), (2, 3)]
    files = {f"{w}x{h}.png": image_bytes(RED, size=(w, h)) for w, h in shapes}
    strip = Image.new("RGB", (20_000, 10), RED)
    files["strip.gif"] = encode(strip, "GIF", save_all=True, append_images=[strip.rotate(180)])
    app = upload(start("--models-dir", models), files)
    assert len(verdicts(app)) == len(files) and not app.error
    for name in ("20000x10.png", "500x1.png"):
        upload(app, {name: files[name]})
        assert len(verdicts(app)) == 1 and not app.error


def test_image_that_the_model_fails_on_has_its_error_and_leaves_the_others(models, monkeypatch):
    prepare = Detector.prepare

    def fail_for_one(detector, image, **options):
        if image.width == 41:
            raise ZeroDivisionError("no such shape")
        return prepare(detector, image, **options)

    monkeypatch.setattr(Detector, "prepare", fail_for_one)
    files = {f"{width}.png": image_bytes(RED, size=(width, 30)) for width in (40, 41, 42)}
    app = upload(start("--models-dir", models), files)
    assert ["AI-generated" in verdict for verdict in verdicts(app)] == [True, False, True]
    assert "Could not be judged: no such shape." in shown_texts(app)


def test_card_that_cannot_be_drawn_says_so_and_leaves_the_others(models, monkeypatch):
    show_picture = results.show_picture

    def fail_for_one(judged, **options):
        if judged.answer.name == "b.png":
            raise ZeroDivisionError
        show_picture(judged, **options)

    monkeypatch.setattr(results, "show_picture", fail_for_one)
    files = {
        name: image_bytes(RED, size=(40, 30 + i))
        for i, name in enumerate(("a.png", "b.png", "c.png"))
    }
    app = upload(start("--models-dir", models), files)
    assert len(verdicts(app)) == 3 and len(app.error) == 1
    assert "cannot be shown" in app.error[0].value
    assert shown_texts(app).count("**What the model sees**") == 2


def test_broken_files_are_refused_by_name_and_the_others_judged(models):
    files = {
        "broken.jpg": b"nope",
        "empty.png": b"",
        "cut.png": image_bytes(RED)[:80],
        "whole.png": image_bytes(RED),
    }
    app = upload(start("--models-dir", models), files)
    assert len(verdicts(app)) == 4
    names, reasons = app.text[::2], app.text[1::2]
    assert [text.value for text in names] == ["broken.jpg", "empty.png", "cut.png"]
    assert "Not an image" in reasons[0].value and "Empty file" in reasons[1].value
    assert "the file ends before its picture does" in reasons[2].value


def test_copies_are_named_and_keep_their_own_cards(models):
    app = upload(
        start("--models-dir", models), {"a.png": image_bytes(RED), "b.png": image_bytes(RED)}
    )
    assert len(verdicts(app)) == 2
    assert "Same content as" in shown_texts(app)


def test_file_names_are_shown_as_text_whatever_they_contain(models):
    evil = "![x](http://tracker.example/x.png) :red[Real] <b>.png"
    app = upload(start("--models-dir", models), {evil: image_bytes(RED), "b.png": image_bytes(RED)})
    parts = [*app.markdown, *app.caption, *app.error, *app.warning]
    assert any("tracker" in part.value for part in parts)
    for part in parts:
        assert "](http://" not in part.value and ":red[Real]" not in part.value
        assert not part.proto.allow_html if hasattr(part.proto, "allow_html") else True


def test_untrusted_class_names_are_shown_as_text(tmp_path):
    evil = "![x](http://tracker.example/y.png)"
    make_colour_model(tmp_path / "models" / "run", class_names=("b", evil, "c"))
    app = start()
    for count in (1, 14):
        upload(app, {f"{i}.png": image_bytes((20, i, 200)) for i in range(count)})
        for part in [*app.markdown, *app.caption, *app.warning, *app.progress]:
            text = part.value if hasattr(part, "value") else part.text
            assert "](http://" not in str(text)
        assert "tracker" in shown_texts(app)
    assert not [option for option in app.pills[0].options if "](http://" in option]


def test_the_bundled_examples_can_be_tried(models):
    app = start("--models-dir", models)
    app.segmented_control(key="image_source").set_value("examples").run()
    assert not app.exception and len(verdicts(app)) == len(image_input.EXAMPLE_FILES)
    told = [m.value for m in app.markdown if m.value.startswith("In truth: ")]
    assert len(told) == len(image_input.EXAMPLE_FILES) and all("the model" in text for text in told)


def test_without_a_model_the_page_says_how_to_get_one():
    app = start()
    assert not app.file_uploader
    commands = [code.value for code in app.code]
    assert "python RunPipeline.py --demo" in commands and "python ModelTraining.py" in commands


def test_a_model_that_does_not_exist_is_named():
    app = start("--model", "models/absent")
    assert "absent" in app.text[0].value


@pytest.mark.parametrize("damage", [b"", b"not HDF5", None])
def test_a_damaged_model_gives_a_message(copied_models, damage):
    path = copied_models / "colour" / "model.h5"
    path.write_bytes(path.read_bytes()[:3000] if damage is None else damage)
    app = start()
    assert "cannot be used" in shown_texts(app) and not app.file_uploader


def test_model_deleted_while_serving_gives_a_message(copied_models):
    app = upload(start(), {"red.png": image_bytes(RED)})
    shutil.rmtree(copied_models / "colour")
    app.run()
    assert not app.exception
    assert "not here any more" in app.warning[0].value
    assert app.selectbox(key="model").value == "three" and "malignant" in verdicts(app)[0]


def test_replaced_model_answers_after_the_change(copied_models):
    app = upload(start(), {"red.png": image_bytes(RED)})
    assert "AI-generated" in verdicts(app)[0]
    shutil.copy(copied_models / "three" / "model.h5", copied_models / "colour" / "model.h5")
    app.run()
    assert not app.exception and "malignant" in verdicts(app)[0]


def test_an_unchanged_page_judges_nothing_twice(models, monkeypatch):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})

    def refuse(*args, **kwargs):
        raise AssertionError("judged again")

    monkeypatch.setattr("real_vs_ai.ui.check_page.check_image", refuse)
    app.run()
    assert not app.exception and "AI-generated" in verdicts(app)[0]


@pytest.mark.parametrize("number", [5, 20])
def test_answers_appear_while_others_are_awaited(models, monkeypatch, number):
    drawn = []
    show_progress = check_page.show_progress

    def watch(judged, *, total):
        drawn.append((len(judged), total))
        show_progress(judged, total=total)

    monkeypatch.setattr(check_page, "_REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(check_page, "show_progress", watch)
    files = {f"{i}.png": image_bytes((200, i, 0)) for i in range(number)}
    upload(start("--models-dir", models), files)
    assert drawn == [(done, number) for done in range(1, number)]


def test_hundreds_of_images_become_a_table_that_can_be_filtered(models):
    files = {f"red{i}.png": image_bytes((200, i, 20)) for i in range(60)}
    files |= {f"blue{i}.png": image_bytes((20, i, 200)) for i in range(40)}
    files["bad.png"] = b"nope"
    app = upload(start("--models-dir", models), files)
    table = app.dataframe[0].value
    assert len(table) == 101 and table["image"][0].startswith("data:image/jpeg;base64,")
    counts = table["conclusion"].value_counts()
    looks = ["▲ Looks AI-generated", "○ No sign of AI found", "✕ Unreadable"]
    assert list(counts[looks]) == [60, 40, 1]
    assert list(dict.fromkeys(table["conclusion"])) == looks
    assert [option.split("**")[1] for option in app.pills[0].options] == ["60", "40", "1"]
    app.pills(key="shown_conclusions").set_value(["No sign of AI found"]).run()
    assert len(app.dataframe[0].value) == 40


def test_uploads_are_still_there_after_looking_at_the_examples(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    choose = app.segmented_control(key="image_source").set_value
    choose("examples").run()
    assert not app.exception and len(verdicts(app)) == len(image_input.EXAMPLE_FILES)
    app.segmented_control(key="image_source").set_value("upload").run()
    assert "AI-generated" in verdicts(app)[0]
    upload(app, {"blue.png": image_bytes(BLUE)})
    assert len(verdicts(app)) == 2 and "Showing 1 picture you uploaded earlier." in shown_texts(app)
    app.run()
    assert len(verdicts(app)) == 2
    button(app, "Clear all").click().run()
    assert not verdicts(app) and not app.exception


def test_more_images_than_allowed_are_cut_off_with_a_warning(models, monkeypatch):
    monkeypatch.setattr(image_input, "MAX_IMAGES", 3)
    app = upload(
        start("--models-dir", models), {f"{i}.png": image_bytes((i, 0, 0)) for i in range(5)}
    )
    assert len(verdicts(app)) == 3 and "first 3 of these 5" in app.warning[0].value


def test_an_image_of_too_many_pixels_is_refused(models):
    huge = encode(Image.new("1", (20_000, 20_000)), "PNG")
    app = upload(start("--models-dir", models), {"huge.png": huge})
    assert "Too many pixels" in app.text[1].value


def test_a_link_opens_the_same_model(models):
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S)
    sys.argv[1:] = ["--models-dir", str(models)]
    app.query_params["model"] = "three"
    assert app.run().selectbox(key="model").value == "three"
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S)
    app.query_params["model"] = "gone"
    assert "not here any more" in app.run().warning[0].value and not app.exception


def test_a_label_in_the_file_is_not_hidden_by_what_the_model_sees(models):
    settings = PngImagePlugin.PngInfo()
    settings.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    # The model misses most AI pictures, so it does not outweigh a label that names its tool.
    for colour in (RED, BLUE):
        data = encode(Image.new("RGB", (40, 30), colour), "PNG", pnginfo=settings)
        app = upload(start("--models-dir", models), {"a.png": data})
        assert "Labelled AI-generated" in verdicts(app)[0]
        assert "Stable Diffusion" in shown_texts(app)
        assert any("generator" in text.value for text in app.text)


def test_stopping_keeps_what_was_checked_and_the_rest_can_follow(models):
    app = start("--models-dir", models)
    files = {f"{i}.png": image_bytes((200, i, 0)) for i in range(20)}
    upload(app, files)
    known = app.session_state["checks"]
    # As after a click on Stop when 15 were done.
    for digest in list(known)[15:]:
        del known[digest]
    app.session_state["stopped"] = True
    app.run()
    assert "15 of 20 pictures" in app.warning[0].value and len(app.dataframe[0].value) == 15
    button(app, "Check the rest").click().run()
    assert len(app.dataframe[0].value) == 20 and not app.warning
