"""A stage that is disturbed at any disk operation gives the undisturbed bytes in the next run.

A stage runs in a forked process that is killed (or meets a full disk, or Ctrl-C) at one of its
disk operations. What it leaves must be the old state or the new one, and running it again must
end in the same bytes as a run that nothing disturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import time
from concurrent.futures import ProcessPoolExecutor

import pytest

from real_vs_ai.core.config import SPLITS
from real_vs_ai.preparation.archives import zip_folder
from real_vs_ai.preparation.merging import move_augmented
from real_vs_ai.preparation.staging import delete, locked, plan_deletion, staged_output
from tests.preparation import material
from tests.preparation.material import make_merged, make_train_test, run_disturbed, snapshot
from tests.script_processes import ScriptProcess

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def unzip(data, *, overwrite=False):
    material.unpack(data / "archives" / "set.zip", data / "raw", overwrite=overwrite)


def split(data, *, overwrite=False):
    options = {"fractions": material.FOUR_TO_ONE, "overwrite": overwrite}
    material.split(data / "raw" / "set", data / "split", **options)


def merge(data, *, overwrite=False):
    material.merge([data / "split" / "set"], data, overwrite=overwrite)


def equalise(data, *, overwrite=False):
    """A merge that encodes again and writes the report, which an earlier one has made."""
    options = {"overwrite": overwrite, "equalise": 8, "confounds": True}
    material.merge([data / "split" / "set"], data, **options)


def augment(data, *, overwrite=False):
    material.augment(data, copies=1, seed=1, overwrite=overwrite)


def move(data, *, overwrite=False):
    move_augmented(data)


def pack(data, *, overwrite=False):
    zip_folder(data / "train", output=data / "train.zip", entries=None, overwrite=overwrite)


def remove(data, *, overwrite=False):
    delete(plan_deletion([data / "train"], allowed=[data]))


def prepare(data, stage):
    """What the stages before this one leave."""
    if stage in {unzip, split, merge, equalise}:
        make_train_test(data / "raw" / "set", train=6, test=2)
    if stage is unzip:
        archive = data / "archives" / "set.zip"
        zip_folder(data / "raw" / "set", output=archive, entries=None, overwrite=False)
        shutil.rmtree(data / "raw")
    if stage in {merge, equalise}:
        split(data)
    if stage in {augment, move, pack, remove}:
        make_merged(data, train=3, others=1)
    if stage is move:
        augment(data)


STAGES = [unzip, split, merge, augment, move, pack, remove]
# These replace their old output as well.
REPLACING = [unzip, split, merge, equalise, augment, pack]
CASES = [(stage, False) for stage in STAGES] + [(stage, True) for stage in REPLACING]


@pytest.fixture(scope="module")
def in_light_process():
    """Calls functions where little is imported: a fork copies what its parent holds."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        yield lambda function, *given: pool.submit(function, *given).result()


def disturb(stage, replacing, folder, how, counts, seed):
    """Disturb a stage at operations chosen at random, one in each run, and run it again after each.

    Args:
        stage: Its function.
        replacing: Whether it replaces its own earlier output.
        folder: An empty folder to work in.
        how: "kill", "full" or "interrupt"; see `run_disturbed`.
        counts: The number of runs, of stages whose output appears at once and of others.
        seed: Seed of the choice.
    """
    template, data = folder / "template", folder / "data"
    template.mkdir()
    prepare(template, stage)
    if replacing:
        stage(template)
    before = snapshot(template)
    shutil.copytree(template, data)

    def run():
        stage(data, overwrite=replacing)

    operations = run_disturbed(run, at=0, how="kill")
    after = snapshot(data)
    # Several outputs, or old ones that make way, take more than one step to change places.
    at_once = stage in {unzip, split, augment, pack, remove} and not replacing
    assert operations > 5
    count = counts[0] if at_once else counts[1]
    if operations > 150:
        # Drawing a figure opens many files, and takes its time.
        count = -(-count // 4)
    for at in random.Random(seed).sample(range(1, operations + 1), min(count, operations)):
        shutil.rmtree(data)
        shutil.copytree(template, data)
        run_disturbed(run, at=at, how=how)
        if at_once and how == "kill":
            assert snapshot(data) in (before, after), f"{how} at operation {at}"
        finish(run, data, after)
        assert snapshot(data) == after, f"{how} at operation {at}"
        if how == "kill":
            hidden = [path for path in snapshot(data, hidden=True) if path not in after]
            assert all(path.endswith(".lock") for path in hidden), f"{at} left {hidden}"


def finish(run, data, after):
    """Run again; a refusal is right when the work had been done."""
    try:
        run()
    except (FileExistsError, FileNotFoundError):
        assert snapshot(data) == after


each_case = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case[0].__name__}{'-overwrite' * case[1]}"
)


@each_case
def test_next_run_finishes_after_a_kill_at_some_operations(case, in_light_process, tmp_path):
    in_light_process(disturb, *case, tmp_path, "kill", (12, 12), 0)


@pytest.mark.slow
@each_case
def test_next_run_finishes_after_a_kill_at_many_operations(case, in_light_process, tmp_path):
    in_light_process(disturb, *case, tmp_path, "kill", (150, 40), 3)


@each_case
@pytest.mark.parametrize("how", ["full", "interrupt"])
def test_full_disk_or_interrupt_leaves_old_or_new_state(case, how, in_light_process, tmp_path):
    in_light_process(disturb, *case, tmp_path, how, (6, 6), 1)


def test_outputs_with_a_common_prefix_stay_independent(tmp_path):
    with (
        staged_output(tmp_path, ["a.b"], label="a.b", overwrite=False) as first,
        staged_output(tmp_path, ["a"], label="a", overwrite=False) as second,
    ):
        (first / "a.b").write_text("first")
        (second / "a").write_text("second")
    assert snapshot(tmp_path).keys() == {"a", "a.b"}


SCRIPT_STAGES = {
    "DataUnZipper": ["raw"],
    "DataSplitD2": ["split"],
    "DataMerger": [*SPLITS, "manifest.csv", "report.csv", "confounds.json", "figures"],
    "DataAugmentation": ["augmented_train"],
}


@pytest.mark.slow
def test_scripts_killed_at_random_times_with_their_workers_running(tmp_path):
    """SIGKILL of the main process alone: its workers outlive it for a moment."""
    data = tmp_path / "data"
    (data / "archives").mkdir(parents=True)
    make_train_test(tmp_path / "set", train=260, test=30)
    archive = data / "archives" / "set.zip"
    zip_folder(tmp_path / "set", output=archive, entries=None, overwrite=False)
    clock = random.Random(7)

    def start(script):
        return ScriptProcess(script, "--workers", "2", folder=tmp_path)

    for script, outputs in SCRIPT_STAGES.items():
        started = time.perf_counter()
        assert start(script).wait()[0] == 0
        seconds = time.perf_counter() - started
        undisturbed = snapshot(data)
        for _ in range(2):
            for name in outputs:
                remove_output(data / name)
            process = start(script)
            time.sleep(seconds * clock.uniform(0.0, 1.0))
            process.kill()
            process.wait()
            start(script).wait()
            assert snapshot(data) == undisturbed, script


def remove_output(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def test_a_second_process_is_turned_away(tmp_path):
    make_train_test(tmp_path / "raw" / "set")
    with (
        locked(tmp_path / "split", label="set"),
        pytest.raises(ValueError, match="Another process"),
    ):
        split(tmp_path)
