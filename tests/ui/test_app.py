"""A user of the app gets verdicts, reasons and messages (AppTest, with the real detector)."""

from __future__ import annotations

import hashlib
import random
import shutil
import sys
import threading

import pytest
from app_driver import TIMEOUT_S, button, shown_texts, start, upload, verdicts
from app_site import (
    APP,
    BLUE,
    GREY,
    RED,
    encode,
    image_bytes,
    make_colour_model,
    make_gemini_server,
    unusual_images,
)
from PIL import Image, PngImagePlugin
from streamlit.testing.v1 import AppTest

from real_vs_ai.out_of_distribution.sizes import summarise_training_images
from real_vs_ai.serving.detector import Detector
from real_vs_ai.ui import cards, image_input

pytestmark = pytest.mark.usefixtures("surroundings")


def test_each_verdict_has_words_icon_number_and_bar(models):
    app = upload(
        start("--models-dir", models),
        {"red.png": image_bytes(RED), "blue.png": image_bytes(BLUE), "g.png": image_bytes(GREY)},
    )
    red, blue, grey = verdicts(app)
    assert "AI-generated" in red and ":material/" in red
    assert "Real" in blue and "Uncertain" in grey
    texts = shown_texts(app)
    assert "Probability of AI-generated: **98." in texts
    assert [texts.count(f"**1** :{colour}[") for colour in ("red", "green", "orange")] == [1, 1, 1]


def test_model_of_other_classes_shows_them_and_is_called_uncalibrated(models):
    app = start("--models-dir", models, "--model", models / "three")
    assert app.selectbox(key="model").value == "three"
    upload(app, {"red.png": image_bytes(RED), "blue.png": image_bytes(BLUE)})
    assert "malignant" in verdicts(app)[0] and "benign" in verdicts(app)[1]
    assert "not calibrated" in shown_texts(app)


def test_out_of_distribution_image_is_uncertain_and_says_why(tmp_path):
    make_colour_model(
        tmp_path / "models" / "small",
        calibrated=True,
        training_images=summarise_training_images([32] * 9, [32] * 9, ["small"] * 9),
        lower_threshold=0.4,
        upper_threshold=0.6,
    )
    sizes = {"alike.png": (32, 32), "huge.png": (900, 900)}
    files = {name: image_bytes(RED, size=size) for name, size in sizes.items()}
    app = upload(start(), files)
    alike, huge = verdicts(app)
    assert "AI-generated" in alike and "Uncertain" in huge
    texts = shown_texts(app)
    assert texts.count("**Can't tell.**") == 1 and "yours is 900 × 900" in texts
    assert texts.count("Probability of") == 1
    app.slider(key="uncertain").set_value((0.1, 0.2)).run()
    assert "Uncertain" in verdicts(app)[1]


def test_a_reason_that_many_cards_share_is_explained_once(tmp_path):
    training_images = summarise_training_images([32] * 9, [32] * 9, ["small"] * 9)
    make_colour_model(tmp_path / "models" / "small", training_images=training_images)
    app = start()
    assert "only knows pictures of about 32 × 32 pixels" in shown_texts(app)
    assert "most photos from phones" in shown_texts(app)
    upload(app, {f"{i}.png": image_bytes((i, 0, 0), size=(900, 900)) for i in range(3)})
    assert "Can't tell for 3 pictures" in app.warning[0].value
    assert shown_texts(app).count("any answer would be a guess") == 1
    assert not app.success and "On test pictures" not in shown_texts(app)
    app = upload(start(), {"a.png": image_bytes(RED, size=(900, 900))})
    assert not [tab.label for tab in app.tabs if "Heat" in tab.label or "Stability" in tab.label]


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
    show_picture = cards.show_picture

    def fail_for_one(judged, **options):
        if judged.answer.name == "b.png":
            raise ZeroDivisionError
        show_picture(judged, **options)

    monkeypatch.setattr(cards, "show_picture", fail_for_one)
    files = {
        name: image_bytes(RED, size=(40, 30 + i))
        for i, name in enumerate(("a.png", "b.png", "c.png"))
    }
    app = upload(start("--models-dir", models), files)
    assert len(verdicts(app)) == 3 and len(app.error) == 1
    assert "cannot be shown" in app.error[0].value
    assert shown_texts(app).count("Probability of") == 2


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
    app.segmented_control(key="image_source").set_value("Examples").run()
    assert not app.exception and len(verdicts(app)) == len(image_input.EXAMPLE_FILES)
    told = [m.value for m in app.markdown if ":material/school:" in m.value]
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


def test_hundreds_of_images_become_a_table_that_can_be_filtered(models):
    files = {f"red{i}.png": image_bytes((200, i, 20)) for i in range(60)}
    files |= {f"blue{i}.png": image_bytes((20, i, 200)) for i in range(40)}
    files["bad.png"] = b"nope"
    app = upload(start("--models-dir", models), files)
    table = app.dataframe[0].value
    assert len(table) == 101 and table["Image"][0].startswith("data:image/jpeg;base64,")
    counts = table["Verdict"].value_counts()
    assert list(counts[["▲ AI-generated", "● Real", "✕ Unreadable"]]) == [60, 40, 1]
    app.text_input(key="shown_names").set_value("blue").run()
    assert len(app.dataframe[0].value) == 40


def test_uploads_are_still_there_after_looking_at_the_examples(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    choose = app.segmented_control(key="image_source").set_value
    choose("Examples").run()
    assert not app.exception and len(verdicts(app)) == len(image_input.EXAMPLE_FILES)
    app.segmented_control(key="image_source").set_value("Upload").run()
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


def test_files_too_large_together_are_dropped_with_a_message(models, monkeypatch):
    held_bytes = image_input.held_bytes
    # As if each byte were 100 MB.
    monkeypatch.setattr(image_input, "held_bytes", lambda: held_bytes() * 10**8)
    files = {f"{i}.png": image_bytes((i, 0, 0)) for i in range(3)}
    app = upload(start("--models-dir", models), files)
    assert "too large together" in app.error[0].value and not verdicts(app)
    assert app.file_uploader[0].value == []


def test_an_image_of_too_many_pixels_is_refused(models):
    huge = encode(Image.new("1", (20_000, 20_000)), "PNG")
    app = upload(start("--models-dir", models), {"huge.png": huge})
    assert "Too many pixels" in app.text[1].value


def test_moving_the_thresholds_moves_verdict_and_false_alarms(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    assert app.metric[0].value == "50.0%"
    app.slider(key="uncertain").set_value((0.3, 0.99)).run()
    assert "Uncertain" in verdicts(app)[0] and app.metric[0].value == "0.0%"
    assert (
        "stay Uncertain" in shown_texts(app) and "of verdicts are Uncertain" in app.warning[0].value
    )
    button(app, "Back to the model's own").click().run()
    assert "AI-generated" in verdicts(app)[0] and app.metric[0].value == "50.0%"
    app.slider(key="uncertain").set_value((0.05, 0.2)).run()
    assert "more likely real" in app.warning[0].value


def test_a_link_opens_the_same_model_and_settings(models):
    app = AppTest.from_file(str(APP), default_timeout=TIMEOUT_S)
    sys.argv[1:] = ["--models-dir", str(models)]
    app.query_params["model"] = "colour"
    app.query_params["uncertain"] = ["0.2", "0.9"]
    app.run()
    assert app.slider(key="uncertain").value == (0.2, 0.9)
    assert any("model=colour&uncertain=0.20&uncertain=0.90" in code.value for code in app.code)
    app.query_params["model"] = "gone"
    app = app.run()
    assert not app.exception


def patchwork() -> bytes:
    """Blue all round, red in the middle: the whole is blue, its middle part is red."""
    image = Image.new("RGB", (80, 80), BLUE)
    image.paste(RED, (16, 16, 64, 64))
    return encode(image, "PNG")


def test_a_verdict_that_flips_when_cropped_becomes_uncertain(models):
    app = upload(start("--models-dir", models), {"patchwork.png": patchwork()})
    assert "Real" in verdicts(app)[0]
    open_tab(app, "Stability")
    assert "Uncertain" in verdicts(app)[0]
    assert "flips after cropping to 75 %" in shown_texts(app)


def test_all_verdicts_can_be_tested_at_once(models):
    files = {"red.png": image_bytes(RED), "patchwork.png": patchwork(), "bad.png": b"nope"}
    app = upload(start("--models-dir", models), files)
    assert "AI-generated" in verdicts(app)[0] and "Real" in verdicts(app)[1]
    app.toggle(key="test_all").set_value(True).run()
    assert not app.exception
    assert "AI-generated" in verdicts(app)[0] and "Uncertain" in verdicts(app)[1]


def test_the_heat_map_shows_where_the_image_speaks_for_a_class(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    before = len(app.image)
    open_tab(app, "Heat map")
    assert "Grad-CAM" in shown_texts(app) and len(app.image) == before + 1


def test_a_mistake_is_reported_as_text_to_copy(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    open_tab(app, "mistake")
    (text,) = [code.value for code in app.code if "Thresholds" in code.value]
    digest = hashlib.sha256(image_bytes(RED)).hexdigest()
    model = hashlib.sha256((models / "colour" / "model.h5").read_bytes()).hexdigest()
    assert digest in text and model in text and "lower 0.3000, upper 0.7000" in text
    assert "Verdict: AI-generated" in text and "red.png" not in text
    assert model[:12] in shown_texts(app)


def open_tab(app: AppTest, part: str) -> None:
    """Select the tab whose name contains `part`, as a click does."""
    tab = next(tab for tab in app.tabs if part in tab.label)
    app.session_state["details"] = tab.label
    app.run()
    assert not app.exception


def test_generator_traces_are_shown_with_the_verdict(models):
    settings = PngImagePlugin.PngInfo()
    settings.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1")
    blue = encode(Image.new("RGB", (40, 30), BLUE), "PNG", pnginfo=settings)
    app = upload(start("--models-dir", models), {"blue.png": blue})
    assert "Real" in verdicts(app)[0]
    assert any("generator" in text.value for text in app.text)
    assert "Speaks for :red[" in shown_texts(app)


def test_gemini_without_a_key_is_explained_and_not_broken(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    open_tab(app, "Gemini")
    assert "GEMINI_API_KEY" in app.info[0].value


def test_nothing_goes_to_gemini_before_the_user_agrees(models, monkeypatch):
    server = make_gemini_server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("GEMINI_API_KEY", "secret-key")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
        open_tab(app, "Gemini")
        assert "Nothing has been sent so far" in shown_texts(app) and server.requests == []
        app.checkbox[0].check().run()
        assert server.requests == []
        button(app, "Ask Gemini about this image").click().run()
        assert len(server.requests) == 1
        # The answer's Markdown is shown as text: a picture in it would be loaded from elsewhere.
        assert any("![pixel](http" in text.value for text in app.text)
        assert all("tracker.example" not in m.value for m in app.markdown)
        app.chat_input[0].set_value("Why red?").run()
        assert len(server.requests) == 2 and "Why red?" in [text.value for text in app.text]
        server.mode = 429
        app.chat_input[0].set_value("And now?").run()
        assert "quota" in app.error[0].value and not app.exception
        button(app, "Withdraw my consent").click().run()
        assert "Nothing has been sent" not in shown_texts(app) and not app.chat_input
        assert "stays with Google" in shown_texts(app)
    finally:
        server.shutdown()
        server.server_close()


def test_two_hundred_hostile_files_leave_the_app_answering(models):
    whole = list(unusual_images().values())
    rng = random.Random(7)
    files = {}
    for number in range(200):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 30)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        files[f"{number}.png"] = bytes(data[: rng.randint(1, len(data))])
    app = upload(start("--models-dir", models), files)
    assert len(app.dataframe[0].value) == 200
    upload(app, {"red.png": image_bytes(RED)})
    assert "AI-generated" in verdicts(app)[0]


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
