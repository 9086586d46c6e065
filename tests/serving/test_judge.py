"""All sessions share one model, get their own answers and never wait for ever."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.perturbations import Perturbation
from real_vs_ai.serving.detector import Detector, RoutingDetector
from real_vs_ai.serving.image_sources import ImageSource
from real_vs_ai.serving.judge import Judge, judge_files
from real_vs_ai.serving.judging_queue import JudgingQueue, ModelUnavailableError
from real_vs_ai.verdict import recalibrate
from tests.serving.trivial_model import encode

METADATA = ModelMetadata(("Fake", "Real"), 4)
CROPS = {"kind": "crops", "crops": 3, "longest_side": 64}
MODULE = "real_vs_ai.serving.judge"
QUEUE = "real_vs_ai.serving.judging_queue"


class ColourEngine:
    """Tells by the mean of red, and fails on images without any; `asked` are its batches' sizes."""

    name, precision, note = "colour", "f32", ""
    batch_size = 4
    parallel_batches = 2
    for_batches = is_open = True

    def __init__(self):
        self.asked = []

    def predict(self, pixels):
        self.asked.append(len(pixels))
        red = pixels[..., 0].mean(axis=(1, 2)) / 255
        if not red.all():
            raise RuntimeError("no red")
        return np.stack([red, 1 - red], axis=1).astype(np.float32)


def colour_detector(engine=None, **options):
    return Detector(
        Path("model.h5"), dataclasses.replace(METADATA, **options), engine or ColourEngine(), None
    )


def several_models(*engines, **options):
    """Thumbnails of 4 pixels go to the first, larger pictures, as 3 crops, to the second."""
    sizes = [summarise_training_images([size], [size], [""]) for size in (4, 12)]
    return RoutingDetector(
        [
            colour_detector(engines[0], training_images=sizes[0], **options),
            colour_detector(engines[1], training_images=sizes[1], input=CROPS, **options),
        ]
    )


def square(side, level):
    """A grey picture."""
    return np.full((side, side, 3), level, np.uint8)


@contextlib.contextmanager
def asking(detector, **options):
    """A function that asks a queue for the verdict on pixels, which will be there."""
    queue = JudgingQueue(detector, **options)
    thread = threading.Thread(target=queue.run, daemon=True)
    thread.start()
    yield lambda pixels: queue.submit(detector.prepare(pixels, hold=True))
    queue.end()
    thread.join(20)
    assert not thread.is_alive()


def judged_in_a_folder(detector, images):
    """The verdicts that images get in a folder."""
    with asking(detector, is_shared=False) as ask:
        answers = [ask(image) for image in images]
    return [answer.result(0) for answer in answers]


@pytest.fixture
def model_file(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{MODULE}.read_metadata", lambda path: METADATA)
    (tmp_path / "model.h5").touch()
    return tmp_path / "model.h5"


@pytest.fixture
def service(model_file):
    service = Judge(model_file, open_detector=lambda path: colour_detector())
    yield service
    service.close()


def test_many_threads_get_each_its_own_answer(service):
    levels = range(1, 101)
    files = [encode(square(4, level)) for level in levels]
    with ThreadPoolExecutor(100) as threads:
        answers = threads.map(service.judge, map(str, levels), files)
        found = [answer.verdict.probability_fake for answer in answers]
    assert found == pytest.approx([level / 255 for level in levels])


def test_first_answer_does_not_wait_for_the_batch_form():
    answered, taken = threading.Event(), threading.Event()
    at_work = threading.Barrier(2, timeout=20)

    class SlowEngine(ColourEngine):
        @property
        def parallel_batches(self):
            # As long as it takes to compile, at most.
            return 2 if answered.wait(20) else 1

        def predict(self, pixels, **options):
            if answered.is_set():
                taken.set()
                # Two batches side by side, or an error.
                at_work.wait()
            return super().predict(pixels, **options)

    image = square(4, 1)
    with asking(colour_detector(SlowEngine())) as ask:
        assert ask(image).result(10).label
        answered.set()
        later = ask(image)
        # Not in one batch with the next, which is a whole one.
        assert taken.wait(20)
        assert all(answer.result(30).label for answer in [ask(image) for _ in range(4)])
        assert later.result(30).label


def test_busy_engine_gets_whole_batches_of_each_model(monkeypatch):
    began, go_on = threading.Event(), threading.Event()

    class HeldEngine(ColourEngine):
        parallel_batches = 1

        def predict(self, pixels, **options):
            began.set()
            assert go_on.wait(20)
            return super().predict(pixels, **options)

    engines = HeldEngine(), HeldEngine()
    monkeypatch.setattr(f"{QUEUE}._PATIENCE_SECONDS", 60)
    small, large = square(4, 128), square(12, 128)
    with asking(several_models(*engines, lower_threshold=0.2, upper_threshold=0.9)) as ask:
        answers = [ask(small)]
        assert began.wait(20)
        answers += [ask(image) for image in [small, large] * 5]
        go_on.set()
        assert all(answer.result(20).label for answer in answers)
    # One alone, then five: and five photographs of three crops each, even odds and so no copies.
    assert [sorted(engine.asked) for engine in engines] == [[1, 1, 4], [3, 4, 4, 4]]


def test_parts_of_a_photograph_and_of_its_copy_are_computed_side_by_side(monkeypatch):
    at_work = threading.Barrier(2, timeout=20)

    class PairedEngine(ColourEngine):
        batch_size = 2

        def predict(self, pixels, **options):
            at_work.wait()
            return super().predict(pixels, **options)

    monkeypatch.setattr(f"{QUEUE}._PATIENCE_SECONDS", 60)
    engine = PairedEngine()
    with asking(colour_detector(engine, input=CROPS)) as ask:
        verdict = ask(square(12, 250)).result(30)
    assert verdict.label == verdict.copy.label == "Fake"
    assert sorted(engine.asked) == [1, 1, 2, 2]


def test_only_the_last_batch_of_each_model_is_filled_up_however_kinds_are_mixed():
    engines = ColourEngine(), ColourEngine()
    detector = several_models(*engines, lower_threshold=0.2, upper_threshold=0.9)
    # Even odds: no copy of a photograph is judged.
    small, large = square(4, 128), square(12, 128)
    judged_in_a_folder(detector, [small, large, large, small, small] * 7)
    assert sum(engines[0].asked) == 21
    assert sum(engines[1].asked) == 14 * 3
    for engine in engines:
        assert sum(size < engine.batch_size for size in engine.asked) == 1


def test_one_photograph_before_many_thumbnails_does_not_stop_them(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._MOST_AHEAD", 8)
    sources = []
    for index, side in enumerate([12] + 40 * [4]):
        path = tmp_path / f"{index:02}.png"
        Image.new("RGB", (side, side), (128, 128, 128)).save(path)
        sources.append(ImageSource(path.name, str(path)))
    detector = several_models(ColourEngine(), ColourEngine())
    names = []

    def score():
        answers = judge_files(sources, detector=detector, workers=2)
        names.extend(answer.name for answer in answers if answer.verdict)

    thread = threading.Thread(target=score, daemon=True)
    thread.start()
    thread.join(20)
    assert names == [source.name for source in sources]


def test_second_looks_fill_the_same_batches_as_first_ones():
    engine = ColourEngine()
    mirroring = {"kind": "resize", "mirror_below": 0.9}
    detector = colour_detector(engine, input=mirroring)
    sure, unsure = square(4, 250), square(4, 128)
    judged_in_a_folder(detector, [unsure, sure, sure] * 12)
    assert sum(engine.asked) == 36 + 12
    # The last first looks, and the second looks that they lead to.
    assert sum(size < engine.batch_size for size in engine.asked) <= 2


def test_a_copy_is_made_and_judged_of_certain_photographs_alone(monkeypatch):
    engine, copies = ColourEngine(), []
    detector = colour_detector(engine, input=CROPS, lower_threshold=0.2, upper_threshold=0.8)
    copy = Perturbation("none", lambda pixels, seed: copies.append(pixels) or pixels)
    monkeypatch.setattr("real_vs_ai.serving.detector.WEB", copy)
    certain, unsure = square(12, 250), square(12, 128)
    verdicts = judged_in_a_folder(detector, [certain, unsure, unsure, unsure] * 5)
    assert [verdict.label for verdict in verdicts[:2]] == ["Fake", "Uncertain"]
    assert len(copies) == 5
    assert sum(engine.asked) == 20 * 3 + 5 * 3


def test_images_that_wait_in_a_crowd_are_held_as_inputs_not_whole(monkeypatch):
    monkeypatch.setattr(f"{QUEUE}._MOST_WHOLE_IMAGES", 2)
    detector, made = colour_detector(input=CROPS), []
    waiting = JudgingQueue(detector)
    monkeypatch.setattr(detector, "_prepare_copy", lambda image: made.append(0) or image[None])
    for _ in range(5):
        waiting.submit(detector.prepare(square(12, 250), hold=True))
    assert len(made) == 3
    detector.prepare(square(12, 250))
    assert len(made) == 4


def test_submitting_waits_while_there_is_enough_to_do():
    detector = colour_detector()
    judging = JudgingQueue(detector, is_shared=False)
    prepared = detector.prepare(square(4, 250))
    taken = []

    def hand_in():
        with contextlib.suppress(ModelUnavailableError):
            taken.extend(judging.submit(prepared) for _ in range(1000))

    thread = threading.Thread(target=hand_in)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    judging.close()
    thread.join(20)
    assert not thread.is_alive()


def test_photograph_that_fails_in_its_first_part_does_not_stop_the_queue():
    class PartEngine(ColourEngine):
        batch_size, parallel_batches = 2, 1

    with asking(colour_detector(PartEngine(), input=CROPS)) as ask:
        bad, good = ask(square(12, 0)), ask(square(12, 250))
        with pytest.raises(RuntimeError, match="no red"):
            bad.result(20)
        assert good.result(20).label == "Fake"


def test_an_image_that_fails_does_not_spoil_the_batch(service):
    good, bad = encode(square(4, 255)), encode(square(4, 0))
    files = [bad if i % 3 else good for i in range(30)]
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(service.judge, map(str, range(30)), files))
    assert [answer.name for answer in answers] == [str(i) for i in range(30)]
    assert {answer.verdict.label for answer in answers[::3]} == {"Fake"}
    failed = [answer for i, answer in enumerate(answers) if i % 3]
    assert {answer.error for answer in failed} == {"could not be judged: no red"}
    assert not any(answer.verdict for answer in failed) and all(a.sha256 for a in failed)


def test_evaluation_finds_uncalibrated_probabilities_of_refused_images_too():
    sizes = summarise_training_images([4], [4], [""])
    detector = colour_detector(training_images=sizes, temperature=2.0, lower_threshold=0.2)
    verdicts = judged_in_a_folder(detector, [square(4, 204), square(40, 204)])
    assert [verdict.uncalibrated for verdict in verdicts] == [pytest.approx((0.8, 0.2))] * 2
    assert [verdict.out_of_distribution for verdict in verdicts] == [False, True]
    assert verdicts[0].probability_fake == pytest.approx(2 / 3)


def test_other_thresholds_are_applied_to_an_image_and_its_copy(monkeypatch):
    detector = colour_detector(input=CROPS)
    darker = Perturbation("darker", lambda pixels, seed: pixels // 4)
    monkeypatch.setattr("real_vs_ai.serving.detector.WEB", darker)
    (verdict,) = judged_in_a_folder(detector, [square(12, 240)])
    assert (verdict.label, verdict.reasons[0].code) == ("Uncertain", "unstable")
    assert verdict.copy.label == "Real"
    wide = dataclasses.replace(detector.metadata, lower_threshold=0.1, upper_threshold=0.9)
    again = recalibrate(verdict, wide)
    assert again.label == "Fake" and again.copy.label == "Uncertain"


def test_broken_file_becomes_an_answer_with_its_error(service):
    answer = service.judge("a.png", b"no image")
    assert answer.verdict is None and answer.error.startswith("not an image")
    assert answer.name == "a.png" and len(answer.sha256) == 64


def test_refused_size_is_told_apart(service):
    service._limits = {"max_bytes": 10, "max_pixels": 100}
    answer = service.judge("a.png", encode(square(4, 1)))
    assert answer.exceeds_limit and "file too large" in answer.error


def test_closed_model_answers_waiting_callers_then_refuses(service, monkeypatch):
    monkeypatch.setattr(f"{MODULE}._IDLE_SECONDS", 0.2)
    service.detector()
    service.close()
    assert service.judge_pixels(square(4, 1)).label
    deadline = time.monotonic() + 300
    with pytest.raises(ModelUnavailableError, match="replaced"):
        while time.monotonic() < deadline:
            time.sleep(0.5)
            service.judge_pixels(square(4, 1))


def test_a_model_that_cannot_be_opened_tells_everybody_why(model_file):
    def refuse(path):
        raise OSError("disk on fire")

    service = Judge(model_file, open_detector=refuse)
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="disk on fire"):
            service.judge("a.png", encode(square(4, 1)))


def test_callers_get_an_error_when_the_program_ends(service, monkeypatch):
    service.detector()

    def refuse(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refuse)
    for reason in ("program is closing", "replaced"):
        with pytest.raises(ModelUnavailableError, match=reason):
            service.judge_pixels(square(4, 9))
