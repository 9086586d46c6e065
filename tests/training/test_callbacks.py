"""Training stops in time and keeps the right weights."""

import math

import keras
import numpy as np
import pytest

from real_vs_ai.training.callbacks import (
    DivergenceGuard,
    OneTraining,
    StopTrainingOnValidationLoss,
    TrainingDivergedError,
    write_history,
)
from real_vs_ai.training.checkpoints import Progress, save_checkpoint


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])


def play(model, losses, *, path, **options):
    """Tell the callback of epochs with (loss, val_loss); weights become the epoch's number."""
    stop = StopTrainingOnValidationLoss(path=path, **options)
    stop.set_model(model)
    model.stop_training = False
    for epoch, (loss, val_loss) in enumerate(losses):
        model.set_weights([np.full((2, 1), float(epoch + 1))])
        stop.on_epoch_end(epoch, {"loss": loss, "val_loss": val_loss})
        if model.stop_training:
            break
    stop.on_train_end()
    return stop, epoch + 1, float(model.get_weights()[0][0, 0])


def test_training_stops_when_validation_loss_exceeds_training_loss(model, tmp_path):
    path = tmp_path / "best.weights.h5"
    losses = [(0.9, 0.8), (0.7, 0.6), (0.5, 0.61), (0.4, 0.1)]
    stop, epochs, weights = play(model, losses, path=path)
    assert stop.stopped
    assert epochs == 3
    # The third epoch is the stop, the second had the lowest validation loss.
    assert (stop.best_epoch, weights) == (2, 2.0)
    model.set_weights([np.zeros((2, 1))])
    model.load_weights(path)
    assert model.get_weights()[0][0, 0] == 2.0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_last_epoch_is_kept_where_asked(model, tmp_path):
    losses = [(0.9, 0.8), (0.7, 0.6), (0.5, 0.7)]
    stop, _, weights = play(model, losses, path=tmp_path / "a.weights.h5", patience=9, keep="last")
    assert (stop.best_epoch, weights) == (3, 3.0)


def test_equal_losses_do_not_stop(model, tmp_path):
    stop, epochs, _ = play(model, [(0.5, 0.5)] * 3, path=tmp_path / "best.weights.h5")
    assert (stop.stopped, epochs) == (False, 3)


def test_patience_counts_epochs_in_a_row(model, tmp_path):
    above, below = (0.5, 0.6), (0.5, 0.4)
    losses = [above, above, below, above, above, above, below]
    stop, epochs, _ = play(model, losses, path=tmp_path / "best.weights.h5", patience=2)
    assert stop.stopped
    assert epochs == 6


def test_best_weights_are_restored_when_training_ends_by_itself(model, tmp_path):
    losses = [(0.9, 0.3), (0.8, 0.7), (0.75, 0.5)]
    stop, _, weights = play(model, losses, path=tmp_path / "best.weights.h5")
    assert not stop.stopped
    assert weights == 1.0


def test_stage_without_improvement_keeps_earlier_weights(model, tmp_path):
    path = tmp_path / "best.weights.h5"
    play(model, [(0.9, 0.3)], path=path)
    stop, _, weights = play(model, [(0.9, 0.5)] * 2, path=path, best_loss=0.3, best_epoch=1)
    assert (stop.best_epoch, weights) == (1, 1.0)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e6])
def test_nan_or_exploding_loss_ends_training_with_advice(loss):
    guard = DivergenceGuard(advice="Lower the learning rate.")
    guard.on_train_batch_end(0, {"loss": 0.7})
    guard.on_train_batch_end(1, {"loss": 5.0})
    with pytest.raises(TrainingDivergedError, match=r"step 3.*Lower the learning rate\."):
        guard.on_train_batch_end(2, {"loss": loss})


def test_weights_that_are_no_numbers_never_replace_a_checkpoint(model, tmp_path):
    model.compile("sgd", "mse")
    path = tmp_path / "state.npz"
    save_checkpoint(path, model, Progress(batch_size=4), metrics=[])
    before = path.read_bytes()
    model.set_weights([np.array([[1.0], [math.nan]])])
    with pytest.raises(TrainingDivergedError, match="--learning-rate"):
        save_checkpoint(path, model, Progress(batch_size=4, step=3), metrics=[])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_callbacks_begin_and_end_once_over_several_fits(model):
    class Counter(keras.callbacks.Callback):
        calls = ()

        def on_train_begin(self, logs=None):
            self.calls += ("begin",)

        def on_train_end(self, logs=None):
            self.calls += ("end",)

    counter = Counter()
    callbacks = OneTraining([counter], add_history=True, model=model)
    model.compile("sgd", "mse")
    for epoch in range(2):
        model.fit(
            np.ones((4, 2)),
            np.ones((4, 1)),
            initial_epoch=epoch,
            epochs=epoch + 1,
            callbacks=callbacks,
            verbose=0,
        )
    assert counter.calls == ("begin",)
    callbacks.finish()
    assert counter.calls == ("begin", "end")


def test_history_is_one_row_for_each_epoch(tmp_path):
    write_history(tmp_path / "h.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "h.csv").read_text().split() == ["epoch,loss", "1,0.5", "2,0.25"]
