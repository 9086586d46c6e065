"""A verdict is the same for every form of an image and from any number of threads."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from real_vs_ai import Detector
from real_vs_ai.core.images import ImageError
from real_vs_ai.core.parallel import one_blas_thread
from real_vs_ai.models.model_file import ModelFileError
from real_vs_ai.serving import engines
from real_vs_ai.serving.fake_engine import FakeEngine, fake_detector, share_of_red
from real_vs_ai.verdicts.verdict import ReasonCode
from tests.serving.trivial_model import IMAGE_SIZE, METADATA, encode, judge_inputs, uniform_image

REPOSITORY = Path(__file__).resolve().parents[2]


def test_brighter_images_are_fake_and_darker_ones_real(detector):
    bright, dark = detector.predict_batch([uniform_image(220), uniform_image(30)])
    assert (bright.label, dark.label) == ("Fake", "Real")
    assert bright.probability_fake > 0.9 > 0.1 > dark.probability_fake
    assert dark.confidence == pytest.approx(1 - dark.probability_fake)
    assert sum(bright.probabilities.values()) == pytest.approx(1)


def test_path_bytes_and_pixels_of_an_image_get_the_same_verdict(detector, tmp_path):
    pixels = uniform_image(150)
    path = tmp_path / "image.png"
    path.write_bytes(encode(pixels))
    by_path, by_text, by_bytes, by_pixels = map(
        detector.predict, [path, str(path), path.read_bytes(), pixels]
    )
    assert by_path == by_text == by_bytes == by_pixels


@pytest.mark.parametrize("count", [1, 2, 9, 33, 70])
def test_a_batch_of_any_size_gets_the_verdicts_of_its_images(detector, count):
    images = [uniform_image(brightness) for brightness in np.linspace(0, 255, count, dtype=int)]
    together = [verdict.probability_fake for verdict in detector.predict_batch(images)]
    alone = [detector.predict(image).probability_fake for image in images]
    assert together == pytest.approx(alone, abs=1e-5)


def test_open_detector_keeps_working_after_its_file_is_replaced(model_with, detector):
    path = model_with(created="first")
    opened = Detector.open(path, engine="openvino", precision="f32")
    images = [uniform_image(10 * index) for index in range(1, 21)]
    expected = [verdict.probability_fake for verdict in detector.predict_batch(images)]
    path.write_bytes(b"another file")
    found = [verdict.probability_fake for verdict in opened.predict_batch(images)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_unsure_images_are_judged_mirrored_too():
    asked = []
    engine = FakeEngine(lambda pixels: asked.append(pixels) or share_of_red(pixels))
    metadata = dataclasses.replace(METADATA, input={"kind": "resize", "mirror_below": 0.9})
    pixels = np.stack([uniform_image(level, (IMAGE_SIZE, IMAGE_SIZE)) for level in (255, 128)])
    pixels[:, :, 0] = 0
    judge_inputs(fake_detector(engine, metadata=metadata), pixels)
    first, second, mirrored = asked
    np.testing.assert_array_equal([first, second], pixels)
    np.testing.assert_array_equal(mirrored, pixels[1, :, ::-1])


def test_no_images_get_no_verdicts(detector):
    assert detector.predict_batch([]) == []


def test_many_threads_get_the_verdicts_of_their_own_images(detector):
    levels = np.random.default_rng(0).integers(0, 256, 200)
    expected = [detector.predict(uniform_image(level)).probability_fake for level in levels]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda level: detector.predict(uniform_image(level)), levels))
    assert [verdict.probability_fake for verdict in found] == pytest.approx(expected, abs=1e-6)


def test_probabilities_are_calibrated_with_the_models_temperature(model_with, detector):
    image = uniform_image(160)
    softer = Detector.open(model_with(temperature=2.0, calibrated=True), engine="keras").predict(
        image
    )
    plain = detector.predict(image)
    assert 0.5 < softer.probability_fake < plain.probability_fake
    assert not softer.reasons
    assert [reason.code for reason in plain.reasons] == [ReasonCode.NOT_CALIBRATED]


def test_an_undecodable_image_raises_its_error(detector, tmp_path):
    with pytest.raises(ImageError, match="not an image"):
        detector.predict(b"no image")
    with pytest.raises(FileNotFoundError):
        detector.predict(tmp_path / "missing.png")


@pytest.mark.parametrize(
    "pixels", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 8, 3), np.uint8)]
)
def test_pixels_of_another_shape_or_type_are_refused(detector, pixels):
    with pytest.raises(ValueError, match="Expected pixels of shape"):
        detector.predict(pixels)


def test_a_model_whose_input_differs_from_its_metadata_is_refused(model_with):
    with pytest.raises(ModelFileError, match="metadata"):
        Detector.open(model_with(image_size=64), engine="openvino")


def test_unknown_engines_and_pairs_are_refused(model_path):
    with pytest.raises(ValueError, match="Expected engine"):
        Detector.open(model_path, engine="abacus")
    with pytest.raises(ValueError, match="precision f32 with engine keras"):
        Detector.open(model_path, engine="keras", precision="bf16")


def test_a_truncated_model_file_gives_one_clear_line(model_path, tmp_path):
    damaged = tmp_path / "model.h5"
    damaged.write_bytes(model_path.read_bytes()[:-2000])
    with pytest.raises(ModelFileError, match="damaged or incomplete"):
        Detector.open(damaged)


def test_a_model_without_its_weights_gives_one_clear_line(tmp_path):
    import h5py

    from real_vs_ai.models.model_file import write_metadata

    path = tmp_path / "model.h5"
    with h5py.File(path, "w"):
        pass
    write_metadata(path, METADATA)
    with pytest.raises(ModelFileError, match="can be loaded"):
        Detector.open(path)


def test_keras_on_a_gpu_is_chosen_where_there_is_one(model_path, monkeypatch):
    monkeypatch.setattr(engines, "_gpu_is_likely", lambda: True)
    monkeypatch.setattr(engines, "sees_gpu", lambda: True)
    assert Detector.open(model_path).engine.name == "keras"
    monkeypatch.setattr(engines, "sees_gpu", lambda: False)
    assert Detector.open(model_path).engine.name == "openvino"


def _run_python(source: str, *, seconds: float) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    command = [sys.executable, "-c", source]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_first_batches_in_two_threads_do_not_deadlock():
    # The short interval makes threads take turns where OpenVINO builds its tables of types.
    _run_python(
        """
import sys, threading, numpy as np, openvino as ov
from openvino import opset13 as ops
from real_vs_ai.serving.openvino_engine import _CompiledForm
pixels = ops.parameter([4, 8, 8, 3], np.uint8)
model = ov.Model([ops.reduce_mean(ops.convert(pixels, "f32"), [1, 2], False)], [pixels])
form = _CompiledForm(ov.Core().compile_model(model, "CPU", {"NUM_STREAMS": 2}), batch_size=4)
sys.setswitchinterval(1e-9)
together = threading.Barrier(4)
def infer():
    together.wait()
    form.infer(np.zeros((4, 8, 8, 3), np.uint8))
threads = [threading.Thread(target=infer) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
        seconds=60,
    )


def test_importing_the_engine_starts_no_process_and_opens_no_connection():
    found = _run_python(
        """
import atexit, sys
seen = []
watched = ("os.fork", "socket.connect", "socket.getaddrinfo")
sys.addaudithook(lambda event, _: seen.append(event) if event in watched else None)
atexit.register(lambda: print(seen))
import real_vs_ai.serving.openvino_engine
""",
        seconds=60,
    )
    assert found.strip() == "[]"


def blas_threads():
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


def test_numpy_keeps_to_one_thread_until_the_last_check_ends():
    before = blas_threads()
    with one_blas_thread():
        with one_blas_thread():
            assert set(blas_threads()) <= {1}
        assert set(blas_threads()) <= {1}
    assert blas_threads() == before


def test_each_thread_limits_numpy_while_others_that_did_live_on():
    def limit():
        with one_blas_thread():
            return blas_threads()

    before = blas_threads()
    with ThreadPoolExecutor(1) as threads:
        assert set(threads.submit(limit).result()) | set(limit()) <= {1}
        assert blas_threads() == before


def test_numpy_gets_its_threads_back_after_an_error():
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        raise ZeroDivisionError
    assert blas_threads() == before
