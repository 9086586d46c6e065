"""ImageScoring.py takes files, lists and pipes, and says by its exit code how it went."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import ImageScoring
from real_vs_ai.models.runs import make_default
from tests.serving.trivial_model import encode, uniform_image

REPOSITORY = Path(__file__).resolve().parents[2]


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


def test_unreadable_images_exit_with_1_only_when_strict(image_folder, detector, capsys):
    arguments = [str(image_folder / "a"), "--model", str(detector.model_path)]
    assert ImageScoring.main(arguments) == 0
    assert "broken.jpg" in capsys.readouterr().out
    assert ImageScoring.main([*arguments, "--strict"]) == 1


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


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="kills by signal")
def test_killed_scoring_resumes_to_the_same_table(detector, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(600):
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
        while process.poll() is None and kills < 2:
            if partial.exists() and partial.stat().st_size > before + 100 * (kills + 1):
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.001)
        process.wait()
    assert kills
    assert output.read_text() == whole.read_text()
