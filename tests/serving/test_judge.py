"""All sessions share one model, get their own answers and never wait for ever."""

from __future__ import annotations

import dataclasses
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from PIL import Image

from real_vs_ai.core.files import write_json
from real_vs_ai.models.model_file import ModelFileError, ModelMetadata, write_metadata
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.serving.detector import Detector, PreparedImage, RoutingDetector
from real_vs_ai.serving.fake_engine import FakeEngine, fake_detector, share_of_red
from real_vs_ai.serving.image_sources import ImageSource
from real_vs_ai.serving.judge import Judge, judge_files
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.serving.served_model import ServedModel
from real_vs_ai.verdicts.verdict import recalibrate
from tests.serving.trivial_model import encode

METADATA = ModelMetadata(("Fake", "Real"), 4)
CROPS = {"kind": "crops", "crops": 3, "longest_side": 64}
MODULE = "real_vs_ai.serving.judge"
DETECTOR = "real_vs_ai.serving.detector"


def red_or_error(pixels):
    if not pixels[..., 0].any():
        raise RuntimeError("no red")
    return share_of_red(pixels)


def colour_detector(engine=None, **options):
    metadata = dataclasses.replace(METADATA, **options)
    return fake_detector(engine or FakeEngine(red_or_error), metadata=metadata)


def several_models(*engines, **options):
    """Thumbnails of 4 pixels go to the first, larger pictures, as 3 crops, to the second."""
    sizes = [summarise_training_images([size], [size], [""]) for size in (4, 12)]
    inputs = {"small": {}, "large": CROPS}
    return RoutingDetector(
        [
            fake_detector(
                engine,
                metadata=dataclasses.replace(METADATA, training_images=of, input=how, **options),
                name=name,
            )
            for engine, of, (name, how) in zip(engines, sizes, inputs.items(), strict=True)
        ]
    )


def square(side, level):
    """A grey picture."""
    return np.full((side, side, 3), level, np.uint8)


@pytest.fixture
def judged_in_a_folder(tmp_path):
    """The answers that pictures get in a folder."""

    def judge(detector, images):
        sources = []
        for index, pixels in enumerate(images):
            path = tmp_path / f"{index:03}.png"
            Image.fromarray(pixels).save(path)
            sources.append(ImageSource(path.name, str(path)))
        answers = list(judge_files(sources, detector=detector, workers=2))
        assert [answer.name for answer in answers] == [source.name for source in sources]
        return answers

    return judge


@pytest.fixture
def shared():
    return Judge(colour_detector())


def test_many_threads_get_each_its_own_answer(shared):
    levels = range(1, 101)
    files = [encode(square(4, level)) for level in levels]
    with ThreadPoolExecutor(100) as threads:
        answers = threads.map(shared.judge, map(str, levels), files)
        found = [answer.verdict.probability_fake for answer in answers]
    assert found == pytest.approx([level / 255 for level in levels])


@pytest.mark.parametrize(("level", "passes"), [(128, 1), (250, 2)])
def test_a_picture_passes_the_engine_twice_at_most(level, passes):
    for options in ({"input": CROPS}, {"input": {"kind": "resize", "mirror_below": 0.99}}):
        engine = FakeEngine(batch_size=4)
        detector = colour_detector(engine, lower_threshold=0.2, upper_threshold=0.8, **options)
        Judge(detector).judge("a.png", encode(square(12, level)))
        assert len(engine.batches) <= (passes if options["input"] is CROPS else 2)


def test_only_the_last_batch_of_each_model_is_filled_up_however_kinds_are_mixed(judged_in_a_folder):
    engines = FakeEngine(), FakeEngine()
    detector = several_models(*engines, lower_threshold=0.2, upper_threshold=0.9)
    # Even odds: no copy of a photograph is judged.
    small, large = square(4, 128), square(12, 128)
    judged_in_a_folder(detector, [small, large, large, small, small] * 7)
    assert sum(engines[0].batches) == 21
    assert sum(engines[1].batches) == 14 * 3
    for engine in engines:
        assert sum(size < engine.batch_size for size in engine.batches) == 1


def test_one_photograph_before_many_thumbnails_does_not_stop_them(judged_in_a_folder, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._MOST_AHEAD", 8)
    detector = several_models(FakeEngine(), FakeEngine())
    answers = judged_in_a_folder(detector, [square(side, 128) for side in [12] + 40 * [4]])
    assert all(answer.verdict for answer in answers)


def test_second_looks_fill_the_same_batches_as_first_ones(judged_in_a_folder):
    engine = FakeEngine()
    mirroring = {"kind": "resize", "mirror_below": 0.9}
    detector = colour_detector(engine, input=mirroring)
    sure, unsure = square(4, 250), square(4, 128)
    judged_in_a_folder(detector, [unsure, sure, sure] * 12)
    assert sum(engine.batches) == 36 + 12
    # The last first looks, and the second looks that they lead to.
    assert sum(size < engine.batch_size for size in engine.batches) <= 3


def test_a_photograph_passes_the_engine_once(judged_in_a_folder):
    engine = FakeEngine()
    limits = {"lower_threshold": 0.2, "upper_threshold": 0.8}
    detector = colour_detector(engine, input=CROPS, **limits)
    answers = judged_in_a_folder(detector, [square(12, 250), square(12, 128)] * 5)
    assert [answer.verdict.label for answer in answers[:2]] == ["Fake", "Uncertain"]
    assert sum(engine.batches) == 10 * 3


def test_folder_is_read_no_further_than_the_model_can_follow(tmp_path):
    go_on, taken = threading.Event(), []
    Image.fromarray(square(4, 128)).save(tmp_path / "a.png")

    def sources():
        for index in range(1000):
            taken.append(index)
            yield ImageSource(f"{index}", str(tmp_path / "a.png"))

    engine = FakeEngine(lambda pixels: 0.5 if go_on.wait(20) else 0.0)
    answers = judge_files(sources(), detector=colour_detector(engine), workers=2)
    reading = threading.Thread(target=next, args=(answers,))
    reading.start()
    reading.join(1)
    assert reading.is_alive() and len(taken) < 40
    go_on.set()
    reading.join(20)
    answers.close()
    assert len(taken) < 80


def test_an_image_that_fails_does_not_spoil_the_batch(shared):
    good, bad = encode(square(4, 255)), encode(square(4, 0))
    files = [bad if i % 3 else good for i in range(30)]
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(shared.judge, map(str, range(30)), files))
    assert [answer.name for answer in answers] == [str(i) for i in range(30)]
    assert {answer.verdict.label for answer in answers[::3]} == {"Fake"}
    failed = [answer for i, answer in enumerate(answers) if i % 3]
    assert {answer.error for answer in failed} == {"could not be judged: no red"}
    assert not any(answer.verdict for answer in failed) and all(a.sha256 for a in failed)


def test_inputs_of_another_shape_are_refused():
    detector = colour_detector()
    with pytest.raises(ValueError, match=r"Expected pixels of shape \(n, 4, 4, 3\)"):
        detector.judge([PreparedImage(detector, np.zeros((1, 5, 4, 3), np.uint8))])


def test_evaluation_finds_uncalibrated_probabilities_of_refused_images_too(judged_in_a_folder):
    sizes = summarise_training_images([4], [4], [""])
    detector = colour_detector(training_images=sizes, temperature=2.0, lower_threshold=0.2)
    answers = judged_in_a_folder(detector, [square(4, 204), square(40, 204)])
    verdicts = [answer.verdict for answer in answers]
    assert [verdict.uncalibrated for verdict in verdicts] == [pytest.approx((0.8, 0.2))] * 2
    assert [verdict.out_of_distribution for verdict in verdicts] == [False, True]
    assert verdicts[0].probability_fake == pytest.approx(2 / 3)


def test_other_thresholds_are_applied_without_judging_again(judged_in_a_folder):
    detector = colour_detector(input=CROPS)
    verdict = judged_in_a_folder(detector, [square(12, 200)])[0].verdict
    assert verdict.label == "Fake"
    wide = dataclasses.replace(detector.metadata, lower_threshold=0.1, upper_threshold=0.9)
    assert recalibrate(verdict, wide).label == "Uncertain"


def test_each_picture_is_answered_by_its_own_engine_and_metadata():
    engines = FakeEngine(lambda pixels: 0.9), FakeEngine(lambda pixels: 0.3)
    several = several_models(*engines, lower_threshold=0.2, upper_threshold=0.8)
    judge = Judge(several)
    small, large = (judge.judge_pixels(square(side, 1)) for side in (4, 12))
    assert (small.model, small.label) == ("small", "Fake")
    assert (large.model, large.label) == ("large", "Uncertain")
    assert judge.model_of(large).metadata.input == CROPS
    # What belongs to one model is not to be had of several.
    assert not {"engine", "metadata", "model_path", "name"} & set(dir(several))


def test_broken_file_becomes_an_answer_with_its_error(shared, tmp_path):
    answer = shared.judge("a.png", b"no image")
    assert answer.verdict is None and answer.error.startswith("not an image")
    assert answer.name == "a.png" and len(answer.sha256) == 64
    missing = shared.judge_file(tmp_path / "missing.png")
    assert (missing.name, missing.error) == ("missing.png", "No such file or directory")


def test_refused_size_is_told_apart():
    judge = Judge(colour_detector(), max_bytes=10, max_pixels=100)
    answer = judge.judge("a.png", encode(square(4, 1)))
    assert answer.exceeds_limit and "file too large" in answer.error


@pytest.fixture
def file_with_metadata_alone(tmp_path):
    """A model file that no engine can run."""
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_metadata(path, METADATA)
    return path


def test_a_model_that_cannot_be_opened_tells_everybody_why(file_with_metadata_alone, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("disk on fire")

    monkeypatch.setattr(f"{DETECTOR}.open_engine", refuse)
    judge = Judge(file_with_metadata_alone)
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="disk on fire"):
            judge.judge("a.png", encode(square(4, 1)))


def replace_file(path, metadata):
    """Put another model file in its place, as training and evaluation do."""
    other = path.with_name("other.h5")
    shutil.copyfile(path, other)
    write_metadata(other, metadata)
    other.replace(path)


def test_identity_is_that_of_the_file_that_was_opened(file_with_metadata_alone):
    path = file_with_metadata_alone
    first = ServedModel.read(path)
    digest = first.sha256
    replace_file(path, dataclasses.replace(METADATA, created="later"))
    assert first.sha256 == digest != ServedModel.read(path).sha256


def test_file_replaced_before_it_is_hashed_has_no_false_identity(file_with_metadata_alone):
    model = ServedModel.read(file_with_metadata_alone)
    replace_file(model.path, dataclasses.replace(METADATA, created="later"))
    with pytest.raises(ModelFileError, match="was replaced"):
        _ = model.sha256


def test_weights_of_another_file_never_answer_with_this_metadata(model_with):
    lazy = Detector.open_file(model_with(), METADATA, lazy=True, engine="openvino")
    replace_file(lazy.model_path, dataclasses.replace(METADATA, created="later"))
    with pytest.raises(ModelUnavailableError, match="was replaced"):
        lazy.predict(square(4, 1))


def test_record_is_taken_from_the_report_of_the_same_model_alone(file_with_metadata_alone):
    own = {"n": 100, "uncertain_share": 0.5, "error_when_certain": 0.02}
    model = ServedModel.read(file_with_metadata_alone, dataclasses.replace(METADATA, metrics=own))
    rates = {"generated": {"found": {"value": 0.4}, "called_real": {"value": 0.03}}}
    more = {"conditions": {"clean": {**rates, "real": {"accused": {"value": 0.01}}}}}
    for reported, is_own in (
        ({**own, **more}, True),
        ({**own, **more, "uncertain_share": 0.1}, False),
    ):
        write_json(model.path.with_name("metrics.json"), {"test": reported})
        record = dataclasses.replace(model).record
        assert (record.clean is not None) == is_own
