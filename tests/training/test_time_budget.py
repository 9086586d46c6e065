"""A run keeps to its minutes, on slow machines and after a resumption too."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_runs import learning_of, read_history, train

from real_vs_ai.training import trainer
from real_vs_ai.training.callbacks import FEWEST_STEPS, KeepPace, Recorder
from real_vs_ai.training.compilation import WarmedPolynomialDecay
from real_vs_ai.training.options import plan_stages
from real_vs_ai.training.run_state import Progress, TimeBudget

TRACING = 20.0


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run_stage(pace, clock, *, step_seconds, validation_steps=3.125):
    """Take a stage's steps as `fit` does, and return its positions.

    Args:
        pace: Of the stage.
        clock: Of the pace.
        step_seconds: What a step takes, a function of the steps done.
        validation_steps: What the validation takes, in steps; 3.125 is a third of the time that
            the steps take for as many images.
    """
    positions, model = [], SimpleNamespace(stop_training=False)
    pace.set_model(model)
    pace.on_epoch_begin(0)
    clock.now += TRACING
    while True:
        clock.now += step_seconds(pace.done)
        pace.on_train_batch_end(0)
        positions.append(float(pace.position))
        if model.stop_training or pace.done % pace.steps_per_epoch == 0:
            pace.on_test_begin()
            clock.now += validation_steps * step_seconds(pace.done)
            pace.on_test_end()
            pace.on_epoch_end(0)
            pace.on_epoch_begin(0)
        if model.stop_training:
            return positions


def make_pace(minutes, *, done=0, position=0.0, stages="--epochs 4"):
    """The pace of the first stage, of 400 steps, and its clock."""
    clock = Clock()
    budget = TimeBudget(minutes=minutes, clock=clock)
    budget.evaluation_images = 600
    epochs, step = divmod(done, 100)
    learning = learning_of(
        *stages.split(),
        progress=Progress(32, epoch=epochs, step=step, position=position),
        budget=budget,
        validation=range(300),
        steps_per_epoch=100,
    )
    stage = plan_stages(learning.options)[0]
    learning.progress.history = [{"epoch": 1, "stage": stage.name}] * bool(epochs)
    return KeepPace(learning, stage, keras.Variable(0.0, trainable=False)), clock


def total_seconds(pace):
    """Until the evaluation has ended, at the speed that was measured."""
    return pace.budget.spent + pace.evaluation_seconds


@pytest.mark.parametrize("minutes", [3, 5, 8])
def test_run_ends_about_when_its_minutes_are_over(minutes):
    pace, clock = make_pace(minutes)
    run_stage(pace, clock, step_seconds=lambda done: 2.0)
    assert pace.is_cut_short
    assert total_seconds(pace) == pytest.approx(60 * minutes, rel=0.05)


def test_enough_time_means_the_whole_schedule_and_even_decay():
    pace, clock = make_pace(60)
    positions = run_stage(pace, clock, step_seconds=lambda done: 2.0)
    assert not pace.is_cut_short
    np.testing.assert_allclose(positions, np.arange(1, 401) / 400, atol=1e-5)


def test_plan_is_steady_on_a_steady_machine():
    pace, clock = make_pace(5)
    positions = run_stage(pace, clock, step_seconds=lambda done: 2.0)
    # Each step goes the same way, but for the traced one, the first timed ones and the last.
    strides = np.diff(positions[5:-1])
    assert strides.max() < 1.6 * strides.min()


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_change_of_speed_midway_still_ends_in_time_and_decayed(factor):
    pace, clock = make_pace(8)
    steps = run_stage(pace, clock, step_seconds=lambda done: 2.0 * (factor if done > 60 else 1))
    assert steps[-1] == 1.0
    assert np.all(np.diff(steps) > 0)
    # What is judged after the training takes as long an image as validation does now.
    evaluation = 2 * 3.125 * 2.0 * factor + 21
    assert pace.budget.spent + evaluation == pytest.approx(480, rel=0.1)


def test_speed_measured_before_the_steps_tells_what_the_evaluation_takes():
    pace, clock = make_pace(5)
    # A head that learns from stored features says nothing about the whole network.
    pace.budget.image_seconds = 0.2
    run_stage(pace, clock, step_seconds=lambda done: 0.5)
    assert pace.evaluation_seconds > 600 * 0.2
    assert total_seconds(pace) == pytest.approx(300, rel=0.05)


def test_too_few_minutes_still_take_some_steps():
    pace, clock = make_pace(0.1)
    run_stage(pace, clock, step_seconds=lambda done: 2.0)
    assert pace.done == FEWEST_STEPS


def test_stage_leaves_the_later_ones_their_share():
    pace, clock = make_pace(10, stages="--epochs 4 --set frozen_epochs=4")
    began = clock.now
    run_stage(pace, clock, step_seconds=lambda done: 1.0)
    # 400 steps of a third against 400 whole ones: a quarter of the time, less the evaluation's.
    assert 0.15 < (clock.now - began) / 600 < 0.3


def test_resumed_stage_has_what_the_first_session_left():
    pace, clock = make_pace(8, done=40, position=0.25)
    pace.budget.spent_before = 200.0
    positions = run_stage(pace, clock, step_seconds=lambda done: 2.0)
    assert positions[0] > 0.25
    assert total_seconds(pace) == pytest.approx(480, rel=0.05)


def test_limit_added_on_resume_continues_the_schedule():
    pace, _ = make_pace(8, done=100)
    assert float(pace.position) == 0.25


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
    after_step = KeepPace.on_train_batch_end

    def tick(pace, batch, logs=None):
        clock.now += 1.0
        after_step(pace, batch, logs)

    monkeypatch.setattr(KeepPace, "on_train_batch_end", tick)
    monkeypatch.setattr(
        trainer, "TimeBudget", lambda *, minutes: TimeBudget(minutes=minutes, clock=clock)
    )
    return clock


def read(run, column):
    return [float(row[column]) for row in read_history(run)]


def test_stages_share_the_minutes_and_say_their_plan(parse, slow_steps):
    options = parse(
        *("--epochs", "20", "--minutes", "2", "--set", "frozen_epochs=20", "early_stopping=99")
    )
    said = []
    result = train(options, say=said.append)
    # Six steps an epoch: 20 epochs of each stage would take 240 seconds.
    assert 40 <= sum(read(result.run, "steps")) <= 110
    plans = [line for line in said if line.startswith("Planned for 2 min")]
    assert len(plans) == 2 and all("of 120 steps" in plan for plan in plans)
    used = [line.split(" ended")[0] for line in said if "its time is used" in line]
    assert used == ["Stage frozen", "Stage fine-tuning"]
    assert slow_steps.now - 100 <= 120


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
    assert slow_steps.now - 100 <= 60
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
    with pytest.raises(ValueError, match="--minutes plans by the speed of one process"):
        train(parse("--minutes", "5"))
