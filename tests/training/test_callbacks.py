"""Training stops in time and keeps the right weights."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_runs import learning_of

from real_vs_ai.models.keras_models import graph_of
from real_vs_ai.training.callbacks import (
    AveragedWeights,
    DivergenceGuard,
    StopTrainingOnValidationLoss,
    TrainingDivergedError,
    write_history,
)
from real_vs_ai.training.compilation import make_optimizer
from real_vs_ai.training.options import plan_stages
from real_vs_ai.training.run_state import Progress, save_checkpoint


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])


def stop_callback(path, *, progress=None, **options):
    """The callback in a stage of a run with these options."""
    fields = {"early_stopping": 99, **options}
    learning = learning_of(
        *("--set", *(f"{name}={value}" for name, value in fields.items())),
        progress=progress or Progress(batch_size=1),
        run=SimpleNamespace(best_weights=path),
    )
    return StopTrainingOnValidationLoss(learning, plan_stages(learning.options)[0])


@pytest.fixture
def play(model, tmp_path):
    """Tells the callback of epochs with (loss, val_loss); weights become the epoch's number."""

    def play(losses, **options):
        path = tmp_path / "best.weights.h5"
        stop = stop_callback(path, **options)
        stop.set_model(model)
        model.stop_training = False
        for epoch, (loss, val_loss) in enumerate(losses):
            model.set_weights([np.full((2, 1), float(epoch + 1))])
            stop.on_epoch_end(epoch, {"loss": loss, "val_loss": val_loss})
            if model.stop_training:
                break
        model.load_weights(path)
        return stop, epoch + 1, float(model.get_weights()[0][0, 0])

    return play


def test_training_stops_when_validation_loss_exceeds_training_loss(play, tmp_path):
    losses = [(0.9, 0.8), (0.7, 0.6), (0.5, 0.61), (0.4, 0.1)]
    stop, epochs, weights = play(losses)
    assert stop.reason == "the validation loss exceeds the training loss"
    assert epochs == 3
    # The third epoch is the stop, the second had the lowest validation loss.
    assert (stop.learning.progress.best_epoch, weights) == (2, 2.0)
    assert [p.name for p in tmp_path.iterdir()] == ["best.weights.h5"]


def test_last_epoch_is_kept_where_asked(play):
    losses = [(0.9, 0.8), (0.7, 0.6), (0.5, 0.7)]
    stop, _, weights = play(losses, patience=9, keep="last")
    assert (stop.learning.progress.best_epoch, weights) == (3, 3.0)


def test_equal_losses_do_not_stop(play):
    stop, epochs, _ = play([(0.5, 0.5)] * 3)
    assert (stop.reason, epochs) == ("", 3)


def test_patience_counts_epochs_in_a_row(play):
    above, below = (0.5, 0.6), (0.5, 0.4)
    losses = [above, above, below, above, above, above, below]
    stop, epochs, _ = play(losses, patience=2)
    assert stop.reason
    assert epochs == 6


def test_training_stops_after_epochs_without_a_lower_validation_loss(play):
    losses = [(0.9, 0.8), (0.8, 0.6), (0.8, 0.6), (0.8, 0.7)]
    stop, epochs, weights = play([*losses, (0.9, 0.1)], early_stopping=2)
    assert stop.reason == "no lower validation loss in 2 epochs"
    assert (epochs, weights) == (4, 2.0)


def test_resumed_stage_counts_its_earlier_epochs(play):
    earlier = {"loss": 0.5, "val_loss": 0.6, "epoch": 1, "stage": "training"}
    progress = Progress(batch_size=1, history=[earlier])
    stop, epochs, _ = play([(0.5, 0.6)] * 3, patience=1, progress=progress)
    assert stop.reason
    assert epochs == 1


def test_best_weights_are_restored_when_training_ends_by_itself(play):
    losses = [(0.9, 0.3), (0.8, 0.7), (0.75, 0.5)]
    stop, _, weights = play(losses)
    assert not stop.reason
    assert weights == 1.0


def test_stage_without_improvement_keeps_earlier_weights(play):
    progress = play([(0.9, 0.3)])[0].learning.progress
    _, _, weights = play([(0.9, 0.5)] * 2, progress=progress)
    assert (progress.best_epoch, weights) == (1, 1.0)


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


def test_averages_are_validated_and_kept_while_learning_goes_on_from_the_weights(model, tmp_path):
    optimizer = make_optimizer(0.1, fused=False, averaging=0.5)
    model.compile(optimizer, "mse")
    keep = stop_callback(tmp_path / "best.weights.h5", keep="last")
    seen = {}

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen["weights"] = self.model.get_weights()[0]

        def on_test_batch_end(self, batch, logs=None):
            seen["validated"] = self.model.get_weights()[0]

        def on_epoch_end(self, epoch, logs=None):
            seen["after"] = self.model.get_weights()[0]

    start = model.get_weights()[0]
    data = np.ones((4, 2)), np.ones((4, 1))
    callbacks = [keep, AveragedWeights(), Watch()]
    model.fit(*data, validation_data=data, epochs=1, callbacks=callbacks, verbose=0)
    first = seen["weights"]
    model.fit(*data, validation_data=data, epochs=1, callbacks=callbacks, verbose=0)
    # The first step's weights are the first average; Keras begins with them.
    average = 0.5 * first + 0.5 * seen["weights"]
    assert np.abs(first - start).min() > 0.05
    np.testing.assert_allclose(seen["validated"], average, rtol=1e-6)
    np.testing.assert_array_equal(seen["after"], seen["weights"])
    np.testing.assert_array_equal(model.get_weights()[0], seen["weights"])
    graph_of(model).load_weights(keep.learning.run.best_weights)
    np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-6)


def test_history_is_one_row_for_each_epoch(tmp_path):
    write_history(tmp_path / "h.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert (tmp_path / "h.csv").read_text().split() == ["epoch,loss", "1,0.5", "2,0.25"]
