"""A run keeps to its minutes, on slow machines and after a resumption too."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_runs import learning_of, read_history, train

from real_vs_ai.training import loop, trainer
from real_vs_ai.training.callbacks import FEWEST_STEPS, Recorder, TimeLimit
from real_vs_ai.training.compilation import WarmedPolynomialDecay
from real_vs_ai.training.options import plan_stages
from real_vs_ai.training.run_state import Progress

TRACING = 20.0


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run_stage(limit, clock, *, step_seconds, validation_seconds=6.0):
    """Take a stage's steps as `fit` does, and return its positions.

    Args:
        step_seconds: What a step takes, a function of the steps done.
    """
    positions, model = [], SimpleNamespace(stop_training=False)
    limit.set_model(model)
    clock.now += TRACING
    while not model.stop_training:
        clock.now += step_seconds(limit.done)
        limit.on_train_batch_end(0)
        positions.append(float(limit.position))
        if model.stop_training or limit.done % 100 == 0:
            clock.now += validation_seconds
            limit.on_epoch_end(0)
    return positions


def make_limit(minutes, *, done=0, stages="--epochs 4", **progress):
    """The limit of the first stage, of 400 steps, and its clock."""
    clock = Clock()
    epochs, step = divmod(done, 100)
    learning = learning_of(
        *stages.split(),
        *("--minutes", str(minutes)),
        progress=Progress(32, epoch=epochs, step=step, **progress),
        steps_per_epoch=100,
    )
    stage = plan_stages(learning.options)[0]
    learning.progress.history = [{"epoch": 1, "stage": stage.name}] * bool(epochs)
    return TimeLimit(learning, stage, keras.Variable(0.0, trainable=False), clock), clock


@pytest.mark.parametrize("minutes", [3, 5, 8])
def test_learning_ends_about_when_its_minutes_are_over(minutes):
    limit, clock = make_limit(minutes)
    positions = run_stage(limit, clock, step_seconds=lambda done: 2.0)
    assert limit.is_cut_short and positions[-1] == 1.0
    assert clock.now - 100 == pytest.approx(60 * minutes, abs=10)


def test_enough_time_means_the_whole_schedule_and_even_decay():
    limit, clock = make_limit(60)
    positions = run_stage(limit, clock, step_seconds=lambda done: 2.0)
    assert not limit.is_cut_short
    np.testing.assert_allclose(positions, np.arange(1, 401) / 400, atol=1e-5)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_change_of_speed_midway_still_ends_in_time_and_decayed(factor):
    limit, clock = make_limit(8)
    steps = run_stage(limit, clock, step_seconds=lambda done: 2.0 * (factor if done > 60 else 1))
    assert steps[-1] == 1.0
    assert np.all(np.diff(steps) > 0)
    assert clock.now - 100 == pytest.approx(480, abs=20)


def test_too_few_minutes_still_take_some_steps():
    limit, clock = make_limit(0.1)
    run_stage(limit, clock, step_seconds=lambda done: 2.0)
    assert limit.done == FEWEST_STEPS


def test_stage_leaves_the_later_ones_their_share():
    limit, clock = make_limit(10, stages="--epochs 4 --set frozen_epochs=4")
    began = clock.now
    run_stage(limit, clock, step_seconds=lambda done: 1.0)
    # 400 steps of a third against 400 whole ones: a quarter of the time.
    assert 0.2 < (clock.now - began) / 600 < 0.3


def test_resumed_stage_has_what_the_first_session_left():
    limit, clock = make_limit(8, done=40, position=0.25, seconds=200.0)
    positions = run_stage(limit, clock, step_seconds=lambda done: 2.0)
    assert positions[0] >= 0.25
    assert 200 + clock.now - 100 == pytest.approx(480, abs=10)


def test_limit_added_on_resume_continues_the_schedule():
    limit, _ = make_limit(8, done=100)
    assert float(limit.position) == 0.25


def test_learning_rate_follows_the_position_and_warm_up_shrinks_with_it():
    position = keras.Variable(0.0, trainable=False)
    options = {"decay_steps": 100, "end_learning_rate": 0.001, "warmup_steps": 10}
    counted = WarmedPolynomialDecay(0.1, **options)
    paced = WarmedPolynomialDecay(0.1, position=position, **options)
    for step in (0, 5, 10, 50, 100):
        position.assign(step / 100)
        assert float(paced(0)) == pytest.approx(float(counted(step)), rel=1e-5)


@pytest.fixture
def slow_steps(monkeypatch, tiny, short):
    """A clock on which every training step takes a second, and nothing else takes any."""
    clock = Clock()

    class Limit(TimeLimit):
        def __init__(self, *arguments):
            super().__init__(*arguments, clock)

        def on_train_batch_end(self, batch, logs=None):
            clock.now += 1.0
            super().on_train_batch_end(batch, logs)

    monkeypatch.setattr(loop, "TimeLimit", Limit)
    return clock


def read(run, column):
    return [float(row[column]) for row in read_history(run)]


def test_run_learns_within_its_minutes_and_says_so(parse, slow_steps):
    said = []
    options = parse("--epochs", "20", "--minutes", "1", "--set", "early_stopping=99")
    result = train(options, say=said.append)
    # Six steps an epoch: 20 epochs would take 120 seconds.
    assert 55 <= sum(read(result.run, "steps")) <= 61
    assert read(result.run, "learning_rate")[-1] == pytest.approx(1e-5, rel=1e-3)
    assert any("it learns for at most 1 min" in line for line in said)
    assert any("its time is used" in line for line in said)


def test_frozen_and_fine_tuning_stages_share_the_minutes(parse, slow_steps):
    options = parse(
        *("--epochs", "20", "--minutes", "2", "--set", "frozen_epochs=20", "early_stopping=99")
    )
    said = []
    train(options, say=said.append)
    used = [line.split(" ended")[0] for line in said if "its time is used" in line]
    assert used == ["Stage frozen", "Stage fine-tuning"]
    assert slow_steps.now - 100 <= 121


def test_resumed_run_keeps_to_the_minutes_of_both_sessions(parse, slow_steps, monkeypatch):
    arguments = ("--epochs", "20", "--minutes", "1")
    arguments += ("--set", "early_stopping=99", "checkpoint_steps=1")
    count = Recorder.on_train_batch_end

    def interrupt(recorder, batch, logs=None):
        count(recorder, batch, logs)
        if recorder.progress.position > 0.3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(parse(*arguments, "--run-name", "cut"))
    run_folder = parse(*arguments).models_dir / "cut"
    result = train(parse("--resume", str(run_folder), *arguments))
    assert slow_steps.now - 100 <= 61
    assert read(result.run, "learning_rate")[-1] == pytest.approx(1e-5, rel=1e-3)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--minutes", "0"),
        ("--minutes", "-3"),
        ("--minutes", "nan"),
        ("--minutes", "5", "--set", "deterministic=true"),
    ],
)
def test_minutes_that_make_no_sense_are_refused(parse, arguments):
    with pytest.raises(SystemExit) as left:
        parse(*arguments)
    assert left.value.code == 2


def test_minutes_on_several_processes_are_refused(parse, monkeypatch):
    monkeypatch.setattr(trainer, "join_hosts", lambda: trainer.Hosts(0, 2))
    with pytest.raises(ValueError, match="--minutes goes by the clock of one process"):
        train(parse("--minutes", "5"))
