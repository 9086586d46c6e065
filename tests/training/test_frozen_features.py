"""Heads learn from stored features, and runs can hold sources out."""

import keras
import numpy as np
import pytest
from small_runs import die_in_report, train, train_until

from real_vs_ai.dataset import decoded_images
from real_vs_ai.training import loop

pytestmark = pytest.mark.usefixtures("tiny", "blank_figures")

HEAD_ONLY = ("--epochs", "0", "--augmentation", "none", "--set", "stored_features=true")
HEAD_ONLY += ("frozen_epochs=2", "pooling=stages", "dense_units=0", "early_stopping=99")


@pytest.fixture
def measured(monkeypatch):
    """Notes the splits whose features are computed."""
    original, splits = decoded_images._compute_features, []

    def compute(images, network, *, split):
        splits.append(split)
        return original(images, network, split=split)

    monkeypatch.setattr(decoded_images, "_compute_features", compute)
    return splits


def of_another_source(data):
    for label in ("Fake", "Real"):
        for path in sorted((data / "train" / label).iterdir())[:6]:
            path.rename(path.with_name(path.name.replace("source__", "other__")))


def test_held_out_sources_are_validated_and_not_learnt_from(parse, data, short, monkeypatch):
    of_another_source(data)
    learnt = {}
    original = loop.fit_stage

    def watch(learning, stage):
        for split in ("train", "validation"):
            learnt[split] = set(getattr(learning, split).images.sources)
        original(learning, stage)

    monkeypatch.setattr(loop, "fit_stage", watch)
    train(parse(*HEAD_ONLY, "--set", "hold_out=other"))
    assert learnt == {"train": {"source"}, "validation": {"other"}}


def test_copies_among_held_out_images_are_not_validated(parse, data, tmp_path, short):
    of_another_source(data)
    for label in ("Fake", "Real"):
        path = next((data / "train" / label).glob("other__*"))
        path.rename(path.with_name(f"{path.stem}__augmented1.png"))
    seen = []
    train(parse(*HEAD_ONLY, "--set", "hold_out=other"), say=seen.append)
    counts = next(line for line in "\n".join(seen).splitlines() if line.startswith("validation"))
    assert counts.split()[1:] == ["5", "5"]


def test_features_are_computed_once_for_all_runs_on_the_same_images(
    parse, data, tmp_path, measured, short
):
    of_another_source(data)
    cache = ("--set", f"cache_dir={tmp_path / 'cache'}")
    weights = tmp_path / "start.h5"
    train(parse("--epochs", "1", "--set", "pooling=stages", "--run-name", "first"))
    (tmp_path / "models" / "first" / "model.h5").rename(weights)
    start = (*HEAD_ONLY, *cache, "--weights", str(weights))
    train(parse(*start, "--run-name", "one"))
    assert measured == ["train", "validation"]
    train(parse(*start, "--set", "hold_out=other", "--run-name", "two"))
    assert measured == ["train", "validation", "validation"]
    # The same weights compute other features of an enlarged image.
    train(parse(*start, "--set", "enlarge=2", "--run-name", "three"))
    assert measured == ["train", "validation", "validation", "train", "validation"]


def test_a_source_that_is_not_there_is_named(parse, data):
    with pytest.raises(ValueError, match="found those of source"):
        train(parse("--set", "hold_out=nowhere"))


def test_holding_everything_out_is_refused(parse, data):
    with pytest.raises(ValueError, match="Every image"):
        train(parse("--set", "hold_out=source"))


@pytest.mark.parametrize("killed_in", ["fit", "report"])
def test_killed_run_resumes_with_the_backbone_that_it_had(parse, short, monkeypatch, killed_in):
    first = train(parse("--epochs", "1", "--set", "pooling=stages", "--run-name", "first"))
    start = (*HEAD_ONLY, "deterministic=true", "--weights", str(first.run.model), "--seed", "9")
    whole = train(parse(*start, "--run-name", "whole"))

    options = parse(*start, "--run-name", "cut", "--set", "checkpoint_steps=1")
    if killed_in == "fit":
        train_until(monkeypatch, options, step=9)
    else:
        die_in_report(monkeypatch, options)
    cut = whole.run.path.with_name("cut")
    resumed = train(parse(*start, "--resume", str(cut)))
    models = [keras.models.load_model(run.run.model) for run in (whole, resumed)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
