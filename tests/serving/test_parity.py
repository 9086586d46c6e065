"""The released networks in bf16 agree with float32 within stated limits."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai import Detector
from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.images import open_image
from real_vs_ai.models.openvino_form import computes_in_bf16
from real_vs_ai.verdicts.verdict import decide_label
from tests.serving.trivial_model import judge_inputs

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASED = REPOSITORY / "models" / "released"
SHARED = Path(os.environ.get("REAL_VS_AI_SHARED", REPOSITORY.parent / "shared"))
ARCHIVE = SHARED / "data" / "cifake-mini.zip"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    if not ARCHIVE.is_file():
        pytest.skip(f"real images are not there: {ARCHIVE}")
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = sorted(n for n in archive.namelist() if n.lower().endswith(".jpg"))[::16][:256]
        return np.stack([open_image(archive.read(name)) for name in names])


# Largest and mean difference of a thumbnail's probability in bf16.
BF16_LIMITS = (0.06, 0.002)


def test_photographs_are_judged_in_float32_on_every_processor():
    path = RELEASED / "photographs" / "model.h5"
    assert Detector.open(path, engine="openvino").engine.precision == "f32"


def test_bf16_stays_close_to_float32_and_turns_no_verdict(images):
    if not computes_in_bf16():
        pytest.skip("this processor does not compute in bf16")
    path = RELEASED / "model.h5"
    detectors = {
        precision: Detector.open(path, engine="openvino", precision=precision)
        for precision in ("f32", "bf16", None)
    }
    assert detectors[None].engine.precision == "bf16"
    expected = judge_inputs(detectors["f32"], images)[0]
    labels = [decide_label(row, detectors["f32"].metadata) for row in expected]
    found = judge_inputs(detectors["bf16"], images)[0]
    again = judge_inputs(detectors["bf16"], images[:64])[0]
    np.testing.assert_array_equal(found[:64], again, err_msg="not repeatable")
    served = [decide_label(row, detectors["bf16"].metadata) for row in found]
    assert all(a == b or UNCERTAIN in (a, b) for a, b in zip(labels, served, strict=True))
    difference = np.abs(found - expected)
    largest, mean = BF16_LIMITS
    # Exactly the same would mean that bf16 was not used.
    assert 0 < difference.max() <= largest
    assert difference.mean() <= mean
