"""Every image has its row, in order, whatever happens to the others."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import ImageScoring
from real_vs_ai import Detector, __version__
from real_vs_ai.core.files import hash_file
from real_vs_ai.models.model_file import write_metadata
from real_vs_ai.models.runs import make_default
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.serving.image_sources import ImageSource, iterate_sources
from real_vs_ai.serving.judge import Answer, judge_files, map_in_order
from real_vs_ai.serving.openvino_engine import OpenVINOEngine
from real_vs_ai.serving.score_table import (
    COLUMNS,
    LAST_COLUMNS,
    score_columns,
    score_row,
    terminal_lines,
)
from real_vs_ai.serving.scoring_job import (
    ScoringOptions,
    ScoringSummary,
    local_scorer,
    open_scorer,
    run_scoring,
    score_to_file,
    score_to_stream,
)
from real_vs_ai.verdicts.conclusion import ConclusionCode
from real_vs_ai.verdicts.verdict import Reason, ReasonCode, make_verdict, thresholds_of
from tests.serving.trivial_model import METADATA, build_brightness_model, encode, uniform_image

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def detector(model_path):
    return Detector.open(model_path, engine="openvino", precision="f32", for_batches=True)


def scores_of(*inputs, detector, workers=2):
    sources = iterate_sources([str(i) for i in inputs])
    return list(judge_files(sources, detector=detector, workers=workers))


def read_csv(path):
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def score(inputs, output, *, detector, resume=False):
    scorer = local_scorer(detector, workers=2)
    leave = {"resume": resume, "overwrite": False}
    return score_to_file([str(i) for i in inputs], scorer=scorer, output=output, **leave)


def test_every_image_gets_the_verdict_that_it_gets_alone(image_folder, detector):
    scores = scores_of(image_folder, detector=detector)
    assert [s.name for s in scores] == [s.name for s in iterate_sources([str(image_folder)])]
    for item in scores:
        if item.verdict:
            expected = detector.predict(item.name).probability_fake
            assert item.verdict.probability_fake == pytest.approx(expected, abs=1e-5)
            assert (item.width, item.height, item.format) == (48, 40, "PNG")


def test_an_unreadable_image_is_a_row_with_its_error(image_folder, detector):
    missing = ImageSource("gone.png", str(image_folder / "gone.png"))
    sources = [*iterate_sources([str(image_folder)]), missing]
    scores = list(judge_files(sources, detector=detector, workers=2))
    failed = {s.name.rsplit("/", 1)[-1]: s.error for s in scores if not s.verdict}
    assert set(failed) == {"broken.jpg", "gone.png"}
    assert failed["gone.png"] == "No such file or directory"


def test_nothing_but_unreadable_images_is_scored_too(tmp_path, detector):
    for index in range(300):
        (tmp_path / f"{index}.png").write_bytes(b"no image")
    scores = scores_of(tmp_path, detector=detector)
    assert len(scores) == 300
    assert not any(s.verdict for s in scores)


def test_results_do_not_depend_on_the_number_of_workers(image_folder, detector):
    one, many = (scores_of(image_folder, detector=detector, workers=n) for n in (1, 8))
    assert one == many


def test_sources_are_taken_only_as_fast_as_scores_are(detector, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(encode(uniform_image(100)))
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield ImageSource(f"{taken}.png", str(path))

    scores = judge_files(endless(), detector=detector, workers=2)
    assert next(scores).name == "1.png"
    assert taken < 10 * detector.engine.batch_size
    scores.close()


def test_map_in_order_keeps_the_order_and_its_bound():
    running = threading.Semaphore(0)

    def slow_first(item):
        if item == 0:
            running.acquire()
        elif item == 3:
            running.release()
        return item * 10

    with ThreadPoolExecutor(4) as pool:
        results = map_in_order(slow_first, range(8), executor=pool, ahead=4)
        assert list(results) == [index * 10 for index in range(8)]


def test_the_csv_has_the_promised_columns(image_folder, detector, tmp_path):
    output = tmp_path / "scores.csv"
    summary = score([image_folder], output, detector=detector)
    rows = read_csv(output)
    assert tuple(rows[0]) == (*COLUMNS, *LAST_COLUMNS)
    assert summary.counts == {"looks_ai": 5, "looks_photograph": 5, "unreadable": 1}
    assert rows[5]["error"]
    assert rows[5]["label"] == ""
    assert (rows[10]["label"], rows[10]["conclusion"]) == ("Fake", "looks_ai")
    assert (rows[10]["file_says"], rows[10]["generator"]) == ("nothing", "")
    assert "11 images scored with openvino (f32)" in str(summary)


def test_out_of_distribution_images_are_uncertain_and_say_why(model_with, tmp_path):
    sizes = summarise_training_images([40] * 5, [40] * 5, ["small"] * 5)
    path = model_with(training_images=sizes)
    detector = Detector.open(path, engine="openvino", precision="f32")
    for name, size in {"alike": (48, 40), "huge": (600, 500)}.items():
        (tmp_path / f"{name}.png").write_bytes(encode(uniform_image(250, size)))
    output = tmp_path / "scores.csv"
    score([tmp_path / "alike.png", tmp_path / "huge.png"], output, detector=detector)
    alike, huge = read_csv(output)
    assert (alike["label"], huge["label"]) == ("Fake", "Uncertain")
    assert (alike["out_of_distribution"], huge["out_of_distribution"]) == ("false", "true")
    assert huge["reason"] == "size" and "about 40 × 40 pixels" in huge["note"]


def test_more_than_two_classes_have_a_column_each():
    metadata = dataclasses.replace(METADATA, class_names=("benign", "malignant", "normal"))
    assert tuple(score_columns(metadata))[len(COLUMNS) :] == (
        "probability_benign",
        "probability_malignant",
        "probability_normal",
        *LAST_COLUMNS,
    )


def test_resuming_skips_what_was_scored_and_adds_the_rest(
    image_folder, detector, tmp_path, monkeypatch
):
    output = tmp_path / "scores.csv"

    def stop(**_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("real_vs_ai.serving.scoring_job.ScoringSummary", stop)
        with pytest.raises(KeyboardInterrupt):
            score([image_folder / "a"], output, detector=detector)
    summary = score([image_folder], output, detector=detector, resume=True)
    assert (summary.resumed, sum(summary.counts.values())) == (6, 5)
    whole = tmp_path / "whole.csv"
    score([image_folder], whole, detector=detector)
    assert output.read_text() == whole.read_text()


def test_the_terminal_table_shows_every_image_and_no_control_characters(detector, tmp_path):
    (tmp_path / "ok.png").write_bytes(encode(uniform_image(250)))
    output = io.StringIO()
    hostile = tmp_path / f"\x1b[2Jx{'long' * 30}.png"
    hostile.write_bytes(b"no image")
    scorer = local_scorer(detector, workers=1)
    score_to_stream([str(tmp_path)], scorer=scorer, stream=output, as_json=False)
    lines = output.getvalue().splitlines()
    assert "\x1b" not in output.getvalue() and max(map(len, lines)) <= 80
    assert lines[1].startswith("Unreadable") and lines[1].endswith("longlong.png")
    assert "image" in lines[2] and lines[2].startswith("    ")
    accused, why = lines[-2:]
    assert accused.startswith("Looks AI-generated") and accused.endswith("ok.png")
    assert why.startswith("    To the model it looks AI-generated.")


def test_terminal_says_in_words_why_an_image_has_no_verdict():
    sentence = "This model only knows pictures of 32 × 32 pixels; yours is 900 × 900, so no answer."
    reasons = [Reason(ReasonCode.SIZE, sentence)]
    verdict = make_verdict(np.array([0.9, 0.1]), METADATA, out_of_distribution=reasons)
    first, *why = terminal_lines(Answer("a.png", verdict, width=900, height=900)).splitlines()
    assert first.split("  ")[0] == "We can't judge this picture" and first.endswith(" a.png")
    assert " ".join(line.strip() for line in why) == sentence


def test_few_images_on_the_terminal_need_no_form_for_batches(
    detector, image_folder, tmp_path, monkeypatch, capsys
):
    forms = []
    compile_form = OpenVINOEngine._compile

    def compile_and_note(engine, in_batches):
        forms.append(engine.batch_size if in_batches else 1)
        return compile_form(engine, in_batches)

    monkeypatch.setattr(OpenVINOEngine, "_compile", compile_and_note)
    images = [str(path) for path in sorted(image_folder.rglob("*.png"))]
    options = ScoringOptions(detector.model_path, "openvino", None, "f32", 1)
    where = {"resume": False, "overwrite": False, "options": options}
    run_scoring(images[:2], output=None, **where)
    assert forms == [1]
    run_scoring(images[:5], output=None, **where)
    run_scoring(images[:2], output=tmp_path / "scores.csv", **where)
    assert forms[1:] == [32, 32]
    lines = capsys.readouterr().out.splitlines()
    first = [line for line in lines if not line.startswith(" ")][1:3]
    titles = {"Fake": "Looks AI-generated", "Real": "No sign of AI found"}
    expected = [titles[detector.predict(path).label] for path in images[:2]]
    assert [line.split("  ")[0] for line in first] == expected


def run_script(*arguments, **options):
    return subprocess.run(
        [sys.executable, "ImageScoring.py", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_script_scores_a_list_from_standard_input(image_folder, detector, tmp_path):
    output = tmp_path / "scores.jsonl"
    listing = "".join(f"{image_folder / 'b' / f'{i}.png'}\n" for i in (9, 5))
    done = run_script(
        "-", "--model", detector.model_path, "--precision", "f32", "--output", output, input=listing
    )
    assert done.returncode == 0, done.stderr
    assert len(output.read_text().splitlines()) == 2
    assert "Looks AI-generated" in done.stdout


def test_pipe_gets_json_lines_and_a_missing_file_does_not_stop_the_others(image_folder, detector):
    missing = image_folder / "missing.png"
    arguments = [missing, image_folder / "b" / "*.png", "--model", detector.model_path]
    done = run_script(*arguments, "--precision", "f32", "--output", "-")
    assert done.returncode == 0, done.stderr
    first, *others = map(json.loads, done.stdout.splitlines())
    assert first["path"] == missing.as_posix() and first["error"] and first["label"] == ""
    assert [Path(row["path"]).name for row in others] == [
        f"{number}.png" for number in range(5, 10)
    ]
    assert f"error: Expected an image, folder or zip at {missing}, found nothing." in done.stderr


def test_the_last_line_names_the_models_and_the_one_before_what_was_left_out(
    image_folder, detector, capsys
):
    for name in ("b/paper.pdf", "b/drawing.SVG", "b/notes", "b/.hidden"):
        (image_folder / name).write_text("no image")
    model = str(detector.model_path)
    assert ImageScoring.main([str(image_folder / "b"), "--model", model]) == 0
    *_, left_out, last = capsys.readouterr().err.splitlines()
    assert last == f"5 pictures checked by {detector.name}"
    assert left_out.startswith("Left out: 3 files that are no images (")
    for kind in ("1 .pdf", "1 .svg", "1 without ending"):
        assert kind in left_out
    assert max(map(len, (left_out, last))) <= 80

    broken = image_folder / "broken.png"
    broken.write_bytes(b"no image")
    assert ImageScoring.main([str(broken), "--model", model]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"No picture could be checked by {detector.name}"


def test_the_last_line_names_the_file_that_chose_the_model(detector, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "models" / "mine"
    run.mkdir(parents=True)
    shutil.copy(detector.model_path, run / "model.h5")
    make_default(run)
    (tmp_path / "a.png").write_bytes(encode(uniform_image(250)))
    assert ImageScoring.main(["a.png"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"1 picture checked by mine ({Path('models') / 'default.txt'} names it)"


def test_several_models_are_counted_apart():
    judged = Counter({"released/photographs": 2, "released": 10})
    counts = {ConclusionCode.CANT_TELL: 12}
    summary = ScoringSummary(counts, resumed=3, seconds=1, engine="x", judged=judged)
    assert str(summary).splitlines()[-2:] == [
        "3 images had been scored before",
        "10 pictures checked by released, 2 checked by released/photographs",
    ]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_inputs_without_an_image_are_an_error_of_one_line(tmp_path, kind, detector, capsys):
    folder = tmp_path / "papers"
    folder.mkdir()
    model = ["--model", str(detector.model_path)]
    for names, others in (((), "no file"), (("a.pdf", "b.pdf", "c.txt"), "only 3 files that")):
        for name in names:
            (folder / name).write_text("text")
        given = folder if kind == "folder" else tmp_path / f"{len(names)}.zip"
        if kind == "zip":
            with zipfile.ZipFile(given, "w") as archive:
                for name in names:
                    archive.writestr(name, "text")
        for output in ([], ["--output", str(tmp_path / "scores.csv")]):
            assert ImageScoring.main([str(given), *model, *output]) == 1
            error = capsys.readouterr().err
            assert error.startswith("error: Expected images in ") and error.count("\n") == 1
            assert others in error
    assert not (tmp_path / "scores.csv").exists()


def test_no_answer_has_no_confidence():
    metadata = dataclasses.replace(METADATA, lower_threshold=0.1, upper_threshold=0.9)
    for probability, confidence in ((0.5, None), (0.95, 0.95), (0.05, 0.95)):
        verdict = make_verdict(np.array([probability, 1 - probability]), metadata)
        row = score_row(Answer("a.png", verdict), metadata)
        assert row["confidence"] == confidence
        assert row["probability_fake"] == probability


def test_unreadable_images_exit_with_1_only_when_strict(image_folder, detector):
    arguments = [image_folder / "a", "--model", detector.model_path, "--precision", "f32"]
    relaxed, strict = run_script(*arguments), run_script(*arguments, "--strict")
    assert (relaxed.returncode, strict.returncode) == (0, 1)
    assert "broken.jpg" in relaxed.stdout


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["photos", "--resume"], "Expected --output FILE"),
        (["photos", "--resume", "--output", "-"], "Expected --output FILE"),
        (["photos", "--output", "scores.txt"], "Expected an output name"),
        (["missing"], "Expected an image, folder or zip"),
    ],
)
def test_script_that_cannot_work_says_why_in_one_line(
    image_folder, detector, monkeypatch, capsys, options, expected
):
    monkeypatch.chdir(image_folder.parent)
    assert ImageScoring.main([*options, "--model", str(detector.model_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1


def test_model_that_openvino_cannot_run_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model.h5"
    build_brightness_model(METADATA.class_names).save(path)
    write_metadata(path, METADATA)
    options = ScoringOptions(path, "openvino", None, None, workers=1)
    with pytest.raises(ValueError, match=r"cannot be used here: .* holds no graph for OpenVINO"):
        open_scorer(options)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_killed_scoring_resumes_to_the_same_table(detector, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(1500):
        (photos / f"{index:04}.png").write_bytes(encode(uniform_image(index % 256)))
    options = ("--precision", "f32", "--model", str(detector.model_path), "--output")
    arguments = [sys.executable, "ImageScoring.py", str(photos), *options]
    whole = tmp_path / "whole.csv"
    subprocess.run([*arguments, str(whole)], cwd=REPOSITORY, check=True, capture_output=True)
    output = tmp_path / "scores.csv"
    partial = tmp_path / "scores.csv.partial"
    kills = 0
    while not output.exists():
        process = subprocess.Popen(
            [*arguments, str(output), "--resume"],
            cwd=REPOSITORY,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        before = partial.stat().st_size if partial.exists() else 0
        # Killed as soon as it has added something; the last one is let through.
        while process.poll() is None and kills < 4:
            if partial.exists() and partial.stat().st_size > before + 100 * (kills + 1):
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert kills >= 2
    assert output.read_text() == whole.read_text()


def test_json_names_the_model_its_thresholds_and_each_file(detector, image_folder, tmp_path):
    output = tmp_path / "scores.json"
    score([image_folder], output, detector=detector)
    document = json.loads(output.read_text(encoding="utf-8"))
    (model,) = document["models"]
    assert document["version"] == __version__
    assert model["sha256"] == hash_file(detector.model_path)
    assert model["thresholds"] == thresholds_of(detector.metadata)
    for row in document["images"]:
        assert row["sha256"] == hash_file(Path(row["path"]))


@pytest.mark.parametrize(
    ("counts", "strict", "failed"),
    [
        ({"looks_ai": 1, "unreadable": 1}, False, False),
        ({"looks_ai": 1, "unreadable": 1}, True, True),
        ({"unreadable": 2}, False, True),
        ({"looks_ai": 2}, True, False),
        ({}, True, False),
    ],
)
def test_scoring_fails_when_nothing_could_be_read(counts, strict, failed):
    summary = ScoringSummary(counts, resumed=0, seconds=1.0, engine="openvino")
    assert summary.failed(strict=strict) == failed
