"""All sessions share one model, get their own answers and never wait for ever."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.detector import PreparedImage
from real_vs_ai.serving.shared_model import ModelUnavailableError, SharedModel
from real_vs_ai.verdict import make_verdict

METADATA = ModelMetadata(("Fake", "Real"), 32)


class ColourDetector:
    """Tells by the mean of red, and fails on images without any."""

    batch_size = 4
    parallel_batches = 2

    @property
    def detectors(self):
        return (self,)

    def prepare(self, pixels):
        return PreparedImage(pixels)

    def judge(self, images):
        red = np.array([image.pixels[..., 0].mean() for image in images]) / 255
        if not red.all():
            raise RuntimeError("no red")
        return [make_verdict(row, METADATA) for row in np.stack([red, 1 - red], axis=1)]


def model_file(folder):
    path = folder / "model.h5"
    path.touch()
    return path


@pytest.fixture
def service(tmp_path, monkeypatch):
    monkeypatch.setattr("real_vs_ai.serving.shared_model.read_metadata", lambda path: METADATA)
    service = SharedModel(model_file(tmp_path), open_detector=lambda path: ColourDetector())
    yield service
    service.close()


def test_many_threads_get_each_its_own_answer(service):
    answers = {}

    def ask(level):
        pixels = np.full((4, 4, 3), level, np.uint8)
        answers[level] = service.submit(pixels).result().probability_fake

    threads = [threading.Thread(target=ask, args=(level,)) for level in range(1, 101)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert answers == pytest.approx({level: level / 255 for level in range(1, 101)})


def test_first_answer_does_not_wait_for_the_batch_form(tmp_path, monkeypatch):
    answered, taken = threading.Event(), threading.Event()
    at_work = threading.Barrier(2, timeout=20)

    class SlowDetector(ColourDetector):
        @property
        def parallel_batches(self):
            # As long as it takes to compile, at most.
            return 2 if answered.wait(20) else 1

        def judge(self, images):
            if answered.is_set():
                taken.set()
                # Two batches side by side, or an error.
                at_work.wait()
            return super().judge(images)

    monkeypatch.setattr("real_vs_ai.serving.shared_model.read_metadata", lambda path: METADATA)
    service = SharedModel(model_file(tmp_path), open_detector=lambda path: SlowDetector())
    image = np.ones((4, 4, 3), np.uint8)
    assert service.submit(image).result(10).label
    answered.set()
    later = service.submit(image)
    # Not in one batch with the next, which is a whole one.
    assert taken.wait(20)
    assert all(answer.result(30).label for answer in [service.submit(image) for _ in range(4)])
    assert later.result(30).label
    service.close()


def test_busy_engine_gets_whole_batches_of_each_model(tmp_path, monkeypatch):
    sizes, go_on = [], threading.Event()

    class TwoModels(ColourDetector):
        @property
        def detectors(self):
            return (self, self)

        def prepare(self, pixels):
            return PreparedImage(pixels, model=int(pixels.shape[0] == 8))

        def judge(self, images):
            sizes.append([image.model for image in images])
            assert go_on.wait(20)
            return super().judge(images)

    monkeypatch.setattr("real_vs_ai.serving.shared_model._PATIENCE_SECONDS", 60)
    monkeypatch.setattr("real_vs_ai.serving.shared_model.read_metadata", lambda path: METADATA)
    service = SharedModel(model_file(tmp_path), open_detector=lambda path: TwoModels())
    small, large = np.ones((4, 4, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    answers = [service.submit(small)]
    while not sizes:
        time.sleep(0.01)
    answers += [service.submit(image) for image in [small, large] * 5]
    go_on.set()
    assert all(answer.result(20).label for answer in answers)
    assert sorted(sizes[1:]) == [[0], [0] * 4, [1], [1] * 4]
    service.close()


def test_request_that_is_cancelled_while_it_waits_is_not_judged(tmp_path, monkeypatch):
    judged, go_on = [], threading.Event()

    class WaitingDetector(ColourDetector):
        def judge(self, images):
            judged.extend(int(image.pixels[0, 0, 0]) for image in images)
            assert go_on.wait(20)
            return super().judge(images)

    monkeypatch.setattr("real_vs_ai.serving.shared_model.read_metadata", lambda path: METADATA)
    service = SharedModel(model_file(tmp_path), open_detector=lambda path: WaitingDetector())
    first = service.submit(np.full((4, 4, 3), 1, np.uint8))
    while not judged:
        time.sleep(0.01)
    waiting = [service.submit(np.full((4, 4, 3), level, np.uint8)) for level in range(2, 8)]
    assert all(answer.cancel() for answer in waiting[:5]) and not first.cancel()
    go_on.set()
    assert first.result(20).label and waiting[5].result(20).label
    assert judged == [1, 7]
    service.close()


def test_an_image_that_fails_does_not_spoil_the_batch(service):
    good, bad = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    failures = []

    def ask_badly():
        try:
            service.predict_batch([bad])
        except ModelUnavailableError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=ask_badly) for _ in range(20)]
    [thread.start() for thread in threads]
    assert [service.predict_batch([good])[0].label for _ in range(20)] == ["Fake"] * 20
    [thread.join() for thread in threads]
    assert failures == ["no red"] * 20


def test_closed_model_answers_waiting_callers_then_refuses(service, monkeypatch):
    monkeypatch.setattr("real_vs_ai.serving.shared_model._IDLE_SECONDS", 0.2)
    images = [np.ones((4, 4, 3), np.uint8)]
    service.detector()
    service.close()
    assert service.predict_batch(images)[0].label
    deadline = time.monotonic() + 300
    with pytest.raises(ModelUnavailableError, match="replaced"):
        while time.monotonic() < deadline:
            time.sleep(0.5)
            service.predict_batch(images)


def test_a_model_that_cannot_be_opened_tells_everybody_why(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError("disk on fire")

    monkeypatch.setattr("real_vs_ai.serving.shared_model.read_metadata", lambda path: METADATA)
    service = SharedModel(model_file(tmp_path), open_detector=refuse)
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="disk on fire"):
            service.predict_batch([np.ones((4, 4, 3), np.uint8)])


def test_callers_get_an_error_when_the_program_ends(service, monkeypatch):
    service.detector()
    pixels = np.full((4, 4, 3), 9, np.uint8)

    def refuse(*_):
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refuse)
    with pytest.raises(ModelUnavailableError, match="program is closing"):
        service.submit(pixels).result(timeout=30)
    with pytest.raises(ModelUnavailableError):
        service.submit(pixels)
