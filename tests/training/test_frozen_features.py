"""Heads learn from stored features, and runs can hold sources out."""

import pytest
from small_runs import train

from real_vs_ai.dataset import features
from real_vs_ai.training import trainer

pytestmark = pytest.mark.usefixtures("tiny", "blank_figures")

HEAD_ONLY = ("--epochs", "0", "--augmentation", "none", "--set", "stored_features=true")
HEAD_ONLY += ("frozen_epochs=2", "pooling=stages", "dense_units=0", "early_stopping=99")


@pytest.fixture
def measured(monkeypatch):
    """Notes the splits whose features are computed."""
    original, splits = features._compute, []

    def compute(images, network, *, split):
        splits.append(split)
        return original(images, network, split=split)

    monkeypatch.setattr(features, "_compute", compute)
    return splits


def of_another_source(data):
    for label in ("Fake", "Real"):
        for path in sorted((data / "train" / label).iterdir())[:6]:
            path.rename(path.with_name(path.name.replace("source__", "other__")))


def test_held_out_sources_are_validated_and_not_learnt_from(parse, data, short, monkeypatch):
    of_another_source(data)
    learnt = {}
    original = trainer.fit_stage

    def watch(learning, stage):
        for split in ("train", "validation"):
            learnt[split] = set(getattr(learning, split).images.sources)
        original(learning, stage)

    monkeypatch.setattr(trainer, "fit_stage", watch)
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
    cache = ("--cache-dir", str(tmp_path / "cache"))
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
