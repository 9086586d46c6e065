"""The pipeline runs the scripts in order and ends in verdicts."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

import ImageScoring
import RunPipeline
from real_vs_ai import pipeline
from real_vs_ai.pipeline import PipelineOptions, plan_stages, run_stages
from real_vs_ai.preparation.demo import load_photographs, random_crop, resynthesise
from real_vs_ai.training import TrainingOptions
from tests.preparation.material import make_flat

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("REAL_VS_AI_SHARED", ROOT.parent / "shared")) / "data"
SMALL_TRAINING = (
    *("--weights", "none", "--image-size", "32", "--batch-size", "32", "--epochs", "1"),
    *("--augmentation", "light"),
)


def read_scores(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def only_run(folder):
    (run,) = (path for path in (folder / "models").iterdir() if (path / "config.json").is_file())
    return run


def test_wheel_holds_every_script_that_the_pipeline_imports():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    held = set(project["tool"]["setuptools"]["py-modules"])
    assert held == {path.stem for path in ROOT.glob("*.py")}
    stages = plan_stages(PipelineOptions(TrainingOptions()))
    assert [stage.number for stage in stages] == list(range(1, 9))
    assert held >= {stage.script for stage in stages}


@pytest.mark.parametrize("wrong", [["--epohcs", "3"], ["--dropout", "2"], ["--epochs", "-1"]])
def test_wrong_training_option_is_found_before_the_first_stage(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "run_stages", lambda *_, **__: pytest.fail("a stage ran"))
    with pytest.raises(SystemExit) as left:
        RunPipeline.main(["--", *wrong])
    assert left.value.code == 2
    assert RunPipeline.main(["--", "--set", "dropuot=0.2"]) == 1


def test_training_gets_the_options_after_the_dashes():
    assert RunPipeline.parse_args(["--", "--epochs", "3"]).training.epochs == 3


def test_demo_refuses_options_that_it_would_ignore(capsys):
    for options in (["--from", "7"], ["--to", "3"], ["--", "--epochs", "1"]):
        with pytest.raises(SystemExit) as left:
            RunPipeline.main(["--demo", *options])
        assert left.value.code == 2
    assert "settings of its own" in capsys.readouterr().err


def test_splitter_without_matching_data_is_skipped(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_flat(tmp_path / "data" / "raw" / "set", count=12)
    said = []

    splitters = plan_stages(PipelineOptions(TrainingOptions()))[1:3]
    result = run_stages(splitters, raw_dir=Path("data/raw"), say=said.append)

    assert result.exit_code == 0
    assert [outcome for _, _, outcome, _ in result.rows] == ["done", "nothing to do"]
    assert (tmp_path / "data" / "split" / "set" / "manifest.csv").is_file()


def test_first_failing_stage_ends_the_pipeline_with_its_exit_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = run_stages(
        plan_stages(PipelineOptions(TrainingOptions())),
        raw_dir=Path("data/raw"),
        say=lambda line: None,
    )

    assert result.exit_code == 1
    assert [(number, outcome) for number, _, outcome, _ in result.rows] == [(1, "failed")]
    assert "error: Expected" in capsys.readouterr().err


def test_demo_uses_its_own_folders_and_the_released_model(tmp_path):
    pipeline.make_demo_archives(
        tmp_path / "demo" / "archives", seed=1, flat_images=4, train_images=4, test_images=2
    )
    plan = {"data_dir": tmp_path / "demo", "models_dir": tmp_path / "models", "run_name": "x"}
    options = pipeline.demo_options(**plan)

    assert options.sources == ("demo-flat", "demo-train-test")
    assert (options.data_dir, options.training.data) == (tmp_path / "demo", tmp_path / "demo")
    assert (options.training.models_dir, options.training.run_name) == (tmp_path / "models", "x")
    if not pipeline.released_run(tmp_path / "models"):
        assert options.training.weights == "none"
    released = tmp_path / "models" / "released"
    released.mkdir(parents=True)
    (released / "model.h5").write_bytes(b"weights")
    assert pipeline.demo_options(**plan).training.weights == str(released / "model.h5")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty folder to run scripts in, with a network of 20,000 weights for a ResNet101."""
    from real_vs_ai.networks import backbones
    from real_vs_ai.training import devices

    monkeypatch.chdir(tmp_path)
    declared = dataclasses.replace(
        backbones.BACKBONES["resnet101"],
        build=small_backbone,
        stage_ends=lambda body: [layer.name for layer in body.layers if "re_lu" in layer.name],
    )
    monkeypatch.setitem(backbones.BACKBONES, "resnet101", declared)
    monkeypatch.setattr(devices, "best_precision", lambda gpus: "float32")
    return tmp_path


def small_backbone(*, weights, input_tensor):
    """Three convolutions: enough for the traces that the demo's fake images carry."""
    import keras

    x = input_tensor
    for units, strides in ((32, 1), (32, 2), (32, 1)):
        x = keras.layers.Conv2D(units, 3, strides=strides, padding="same")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.ReLU()(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x)


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_demo_model_clearly_beats_chance_and_serves(project, monkeypatch, capsys):
    # The random weights stay as they are; the head learns.
    monkeypatch.setattr(pipeline, "released_run", lambda models_dir: None)
    assert RunPipeline.main(["--demo"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    make_default = (
        f"ImageScoring.py --model {Path('models') / only_run(project).name} --make-default"
    )
    assert last.endswith(make_default)
    assert ImageScoring.main(last.split()[2:]) == 0

    metrics = json.loads((only_run(project) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["backbone"] == "resnet101"
    assert metrics["test"]["n"] > 400
    assert metrics["test"]["accuracy"]["value"] >= 0.85
    # Crops that neither archive holds, of photographs that training never saw.
    random, photographs = np.random.default_rng(123), load_photographs()
    (project / "new").mkdir()
    for name in ("chelsea", "gravel", "china"):
        photograph = next(photographs[file] for file in photographs if file.startswith(name))
        for number in range(10):
            real = random_crop(photograph, side=48, random=random)
            fake = resynthesise(random_crop(photograph, side=48, random=random), random=random)
            Image.fromarray(real).save(project / "new" / f"real-{name}-{number}.png")
            Image.fromarray(fake).save(project / "new" / f"fake-{name}-{number}.png")
    run = ["--model", str(only_run(project))]
    assert ImageScoring.main(["new", "--output", "scores.csv", *run]) == 0
    rows = read_scores(project / "scores.csv")
    judged = [row for row in rows if row["out_of_distribution"] == "false"]
    assert len(rows) == 60
    assert len(judged) >= 45
    is_fake = np.array([Path(row["path"]).name.startswith("fake") for row in judged])
    probabilities = np.array([float(row["probability_fake"]) for row in judged])
    assert np.mean((probabilities >= 0.5) == is_fake) >= 0.75
    assert roc_auc_score(is_fake, probabilities) >= 0.85


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
@pytest.mark.skipif(
    not (SHARED_DATA / "cifake-mini.zip").is_file(), reason="the real images are not here"
)
def test_the_chain_runs_on_real_images_from_archives_to_verdicts(project):
    archives = project / "data" / "archives"
    archives.mkdir(parents=True)
    for name in ("cifake-mini.zip", "fake-or-real-sample.zip"):
        shutil.copy(SHARED_DATA / name, archives)

    assert RunPipeline.main(["--", *SMALL_TRAINING, "--set", "steps_per_epoch=8"]) == 0
    run = ["--model", str(only_run(project))]
    assert ImageScoring.main(["data/test", "--output", "scores.csv", *run]) == 0

    with (project / "data" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        manifest = list(csv.DictReader(file))
    splits_by_content = {}
    for row in manifest:
        splits_by_content.setdefault(row["sha256"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in splits_by_content.values())
    assert {row["source"] for row in manifest} == {"cifake-mini", "fake-or-real-sample"}
    rows = read_scores(project / "scores.csv")
    assert len(rows) == sum(row["split"] == "test" for row in manifest)
    assert {row["error"] for row in rows} == {""}
    metrics = json.loads((only_run(project) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test"]["n"] == len(rows)
    assert set(metrics["test"]["per_source"]) == {"cifake-mini", "fake-or-real-sample"}
