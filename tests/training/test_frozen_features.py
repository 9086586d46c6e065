"""Heads learn from stored features, and runs can hold sources out."""

import keras
import numpy as np
import pytest
from small_runs import begin, die_in_report, train, train_until

from real_vs_ai.dataset import decoded_images

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
    learning = begin(monkeypatch, parse(*HEAD_ONLY, "--set", "hold_out=other"))
    assert set(learning.train.images.sources) == {"source"}
    assert set(learning.validation.images.sources) == {"other"}


def test_copies_among_held_out_images_are_not_validated(parse, data, monkeypatch):
    of_another_source(data)
    for label in ("Fake", "Real"):
        path = next((data / "train" / label).glob("other__*"))
        path.rename(path.with_name(f"{path.stem}__augmented1.png"))
    learning = begin(monkeypatch, parse(*HEAD_ONLY, "--set", "hold_out=other"))
    assert list(learning.validation.images.counts.values()) == [5, 5]


def test_features_are_computed_once_for_all_runs_on_the_same_images(
    parse, data, tmp_path, measured, monkeypatch, first_model
):
    of_another_source(data)
    cache = ("--set", f"cache_dir={tmp_path / 'cache'}")
    start = (*HEAD_ONLY, *cache, "--weights", str(first_model(pooling="stages", dense_units=0)))
    begin(monkeypatch, parse(*start, "--run-name", "one"))
    assert measured == ["train", "validation"]
    begin(monkeypatch, parse(*start, "--set", "hold_out=other", "--run-name", "two"))
    assert measured == ["train", "validation", "validation"]
    # The same weights compute other features of an enlarged image.
    begin(monkeypatch, parse(*start, "--set", "enlarge=2", "--run-name", "three"))
    assert measured == ["train", "validation", "validation", "train", "validation"]


def test_a_source_that_is_not_there_is_named(parse, data):
    with pytest.raises(ValueError, match="found those of source"):
        train(parse("--set", "hold_out=nowhere"))


def test_holding_everything_out_is_refused(parse, data):
    with pytest.raises(ValueError, match="Every image"):
        train(parse("--set", "hold_out=source"))


def test_killed_run_resumes_with_the_backbone_that_it_had(parse, short, monkeypatch, first_model):
    weights = str(first_model(pooling="stages", dense_units=0))
    start = (*HEAD_ONLY, "deterministic=true", "--weights", weights, "--seed", "9")
    whole = train(parse(*start, "--run-name", "whole"))
    train_until(
        monkeypatch, parse(*start, "--run-name", "fit", "--set", "checkpoint_steps=1"), step=9
    )
    die_in_report(monkeypatch, parse(*start, "--run-name", "report"))
    expected = keras.models.load_model(whole.run.model).get_weights()
    for killed_in in ("fit", "report"):
        resumed = train(parse(*start, "--resume", str(whole.run.path.with_name(killed_in))))
        found = keras.models.load_model(resumed.run.model).get_weights()
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_array_equal(a, b)
