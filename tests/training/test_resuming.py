"""A run that is stopped, killed or out of room resumes where it was."""

import json

import keras
import numpy as np
import pytest
from small_runs import begin, die_in_report, read_history, train, train_until

from real_vs_ai.core.errors import InputError
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.training import callbacks, loop, run_folder

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "more"),
    [
        ((2, 20), ()),
        ((9, 13), ("averaging=0.9", "weight_decay=0.01", "balance=draws", "final_rate=0")),
    ],
)
def test_killed_run_resumes_to_the_same_weights_steps_and_history(
    parse, monkeypatch, short, kills, more
):
    """6 steps an epoch, two epochs a stage; between them, both runs are killed in all four."""
    monkeypatch.setattr(run_folder, "_clear_checkpoints", lambda folder: None)
    arguments = ("--epochs", "2", "--set", "checkpoint_steps=1")
    arguments += ("--set", "deterministic=true", "frozen_epochs=2", *more)
    whole = train(parse(*arguments, "--run-name", "whole")).run
    killed = whole.path.with_name("killed")
    options = parse(*arguments, "--run-name", "killed")
    done = 0
    for step in kills:
        train_until(monkeypatch, options, step=step - done)
        # The recorder never heard of the last step, so that it is done once more.
        done = step - 1
        options = parse("--resume", str(killed))
    assert_same_run(whole, train(options).run)


def assert_same_run(first, second):
    """The same history but for the clock, the same optimizer state, the same model."""
    for a, b in zip(read_history(first), read_history(second), strict=True):
        same = [name for name in a if "second" not in name]
        assert {name: a[name] for name in same} == {name: b[name] for name in same}
    states = [np.load(run.checkpoint) for run in (first, second)]
    assert states[0].files == states[1].files
    for key in states[0].files:
        if key != "progress":
            np.testing.assert_array_equal(states[0][key], states[1][key])
    models = [keras.models.load_model(run.model) for run in (first, second)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)


def test_options_changed_on_resume_are_recorded_except_batch_size(parse, monkeypatch, short):
    begin(monkeypatch, parse("--run-name", "run"))
    path = parse().models_dir / "run"
    with pytest.raises(ValueError, match="Expected --batch-size 8 as the run began with"):
        train(parse("--resume", str(path), "--batch-size", "4"))
    before = json.loads((path / "config.json").read_text())
    begin(monkeypatch, parse("--resume", str(path), "--learning-rate", "1e-5"))
    after = json.loads((path / "config.json").read_text())
    assert after["options"] == {**before["options"], **after["options"], "learning_rate": 1e-5}
    (entry,) = after["resumed"]
    assert entry["changed"]["learning_rate"] == [before["options"]["learning_rate"], 1e-5]
    assert after["started"] == before["started"]


def test_folder_of_a_run_killed_before_it_began_is_reused(parse, monkeypatch):
    run = RunFolder(parse().models_dir / "run")
    run.checkpoints.mkdir(parents=True)
    (run.path / ".config.json.123.tmp").write_text("{")
    assert begin(monkeypatch, parse("--run-name", "run")).run == run


@pytest.mark.parametrize("share", [1, 0.25])
def test_run_killed_in_its_report_only_reports_again(parse, monkeypatch, short, first_model, share):
    # Weights from a file: the network that is built to resume has others.
    begun = f"--run-name run --epochs 1 --weights {first_model()} --set frozen_epochs=0"
    die_in_report(monkeypatch, parse(f"{begun} blend={share}"))
    path = parse().models_dir / "run"
    before = keras.models.load_model(path / "model.h5").get_weights()
    said = []
    resumed = train(parse("--resume"), say=said.append)
    assert resumed.run.is_finished
    assert not any(line.startswith("epoch") for line in said)
    for a, b in zip(before, keras.models.load_model(path / "model.h5").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resumed_run_without_the_weights_it_began_with_blends_nothing(parse, monkeypatch, short):
    die_in_report(monkeypatch, parse("--run-name", "run", "--set", "blend=0.5"))
    run = RunFolder(parse().models_dir / "run")
    run.first_weights.unlink()
    with pytest.raises(InputError, match="the weights that the run began with"):
        train(parse("--resume"))


def test_nan_loss_ends_the_run_and_keeps_the_last_checkpoint(parse, monkeypatch, short):
    def poisoned(images, train, *, balance):
        return np.where(images.labels == 0, np.nan, 1.0)

    monkeypatch.setattr(loop, "image_weights", poisoned)
    with pytest.raises(callbacks.TrainingDivergedError, match=r"--resume .*learning rate"):
        train(parse("--run-name", "run"))
    run = RunFolder(parse().models_dir / "run")
    assert not run.model.exists()
    assert not list(run.checkpoints.iterdir())


def test_out_of_memory_before_the_first_step_halves_the_batch(parse, monkeypatch, short):
    original = loop.training_batches

    def make(decoded, *, batch_size, **named):
        if batch_size > 4:
            raise MemoryError("OOM when allocating tensor")
        return original(decoded, batch_size=batch_size, **named)

    monkeypatch.setattr(loop, "training_batches", make)
    said = []
    result = train(parse("--batch-size", "16", "--epochs", "1"), say=said.append)
    assert [line for line in said if "Out of memory" in line] == [
        "Out of memory in batches of 16: continuing with 8.",
        "Out of memory in batches of 8: continuing with 4.",
    ]
    assert result.run.is_finished


def test_full_disk_keeps_the_checkpoint_before_and_resumes(parse, monkeypatch, short):
    original = np.savez
    calls = {"n": 0}

    def savez(file, **arrays):
        calls["n"] += 1
        if calls["n"] == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        original(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", savez)
        with pytest.raises(OSError, match="No space left"):
            train(parse("--run-name", "run"))
    run = RunFolder(parse().models_dir / "run")
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["best.weights.h5", "state.npz"]
    assert train(parse("--resume", str(run.path))).progress.epoch == 2


def test_changed_images_are_noticed_before_resuming(parse, data, monkeypatch, short):
    begin(monkeypatch, parse("--run-name", "run"))
    next((data / "train" / "Fake").iterdir()).unlink()
    with pytest.raises(ValueError, match="have changed since"):
        train(parse("--resume"))
