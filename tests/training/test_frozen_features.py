"""Heads learn from stored features, and runs can hold sources out."""

import pytest

from real_vs_ai.training import trainer
from real_vs_ai.training.networks import head as frozen
from real_vs_ai.training.trainer import train

pytestmark = pytest.mark.usefixtures("tiny", "blank_figures")

HEAD_ONLY = ("--stored-features", "--epochs", "0", "--frozen-epochs", "2", "--augmentation", "none")
HEAD_ONLY += ("--pooling", "stages", "--dense-units", "0", "--early-stopping", "99")


def quiet(line):
    pass


@pytest.fixture
def measured(monkeypatch):
    """Notes the splits whose features are computed."""
    original, splits = frozen._features, []

    def features(network, images, *, split, **named):
        splits.append(split)
        return original(network, images, split=split, **named)

    monkeypatch.setattr(frozen, "_features", features)
    return splits


def of_another_source(data):
    for label in ("Fake", "Real"):
        for path in sorted((data / "train" / label).iterdir())[:6]:
            path.rename(path.with_name(path.name.replace("source__", "other__")))


def test_held_out_sources_are_validated_and_not_learnt_from(parse, data, short, monkeypatch):
    of_another_source(data)
    learnt = {}
    original = frozen.head_and_features

    def watch(*args, **named):
        head, splits = original(*args, **named)
        learnt.update({split: set(images.images.sources) for split, images in splits.items()})
        return head, splits

    monkeypatch.setattr(trainer, "head_and_features", watch)
    train(parse(*HEAD_ONLY, "--hold-out", "other"), say=quiet)
    assert learnt == {"train": {"source"}, "validation": {"other"}}


def test_copies_among_held_out_images_are_not_validated(parse, data, tmp_path, short):
    of_another_source(data)
    for label in ("Fake", "Real"):
        path = next((data / "train" / label).glob("other__*"))
        path.rename(path.with_name(f"{path.stem}__augmented1.png"))
    seen = []
    train(parse(*HEAD_ONLY, "--hold-out", "other"), say=seen.append)
    counts = next(line for line in "\n".join(seen).splitlines() if line.startswith("validation"))
    assert counts.split()[1:] == ["5", "5"]


def test_features_are_computed_once_for_all_runs_on_the_same_images(
    parse, data, tmp_path, measured, short
):
    of_another_source(data)
    cache = ("--cache-dir", str(tmp_path / "cache"))
    weights = tmp_path / "start.h5"
    train(parse("--epochs", "1", "--pooling", "stages", "--run-name", "first"), say=quiet)
    (tmp_path / "models" / "first" / "model.h5").rename(weights)
    start = (*HEAD_ONLY, *cache, "--weights", str(weights))
    train(parse(*start, "--run-name", "one"), say=quiet)
    assert measured == ["train", "validation"]
    train(parse(*start, "--hold-out", "other", "--run-name", "two"), say=quiet)
    assert measured == ["train", "validation", "validation"]
    # The same weights compute other features of an enlarged image.
    train(parse(*start, "--enlarge", "2", "--run-name", "three"), say=quiet)
    assert measured == ["train", "validation", "validation", "train", "validation"]


def test_a_source_that_is_not_there_is_named(parse, data):
    with pytest.raises(ValueError, match="found those of source"):
        train(parse("--hold-out", "nowhere"), say=quiet)


def test_holding_everything_out_is_refused(parse, data):
    with pytest.raises(ValueError, match="Every image"):
        train(parse("--hold-out", "source"), say=quiet)
