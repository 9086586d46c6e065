"""Make OpenVINO's form of a Keras model file, in a process of its own.

    convert(Path("models/released/model.h5"), output_dir=Path("converted"))   # model.xml, model.bin

Run as a module (`python -m real_vs_ai.serving.conversion MODEL OUTPUT_DIR`) it does the work that
`convert` waits for. Keras runs on TensorFlow for it: OpenVINO folds the normalisation of
TensorFlow's graph into the convolutions and leaves no change of layout between them. Keras'
OpenVINO backend exports both (measured on ResNet101: 1.5 times as long an image in bf16, and 8-bit
models that are computed in floating point). Keras' backend is fixed when it is imported, and both
are heavy: the serving process imports neither.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from real_vs_ai.errors import RealVsAIError

IR_NAME = "model.xml"
# A cold start of Keras on a slow disk takes most of it; ResNet101 itself takes about 10.
_TIME_LIMIT_SECONDS = 600


class ConversionError(RealVsAIError, RuntimeError):
    """The model has no OpenVINO form; the message is one line that says why."""


def convert(model_path: Path, *, output_dir: Path) -> Path:
    """Write the model as OpenVINO IR, weights in float32.

    Args:
        model_path: A Keras model file (`.h5`).
        output_dir: An existing folder.

    Returns:
        The path of the `.xml`; its `.bin` lies beside it. Its first output is the softmax; where
        the file has statistics of a layer's features, these are the second.

    Raises:
        ConversionError: Keras or OpenVINO could not do it, or took too long.
    """
    package_parent = str(Path(__file__).resolve().parents[2])
    search_path = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join(search_path),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    # -P: not what happens to lie in the folder where the user stands.
    arguments = [sys.executable, "-P", "-m", __name__, str(model_path.resolve()), str(output_dir)]
    try:
        done = subprocess.run(
            arguments,
            env=environment,
            capture_output=True,
            timeout=_TIME_LIMIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConversionError(f"conversion to OpenVINO failed: {error}") from error
    ir_path = output_dir / IR_NAME
    if done.returncode != 0 or not ir_path.is_file():
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = lines[-1][:300] if lines else f"exit code {done.returncode}"
        raise ConversionError(f"conversion to OpenVINO failed: {reason}")
    return ir_path


def _export(model_path: str, output_dir: str) -> None:
    from real_vs_ai.serving.engines import load_keras_model, with_features

    model = with_features(load_keras_model(Path(model_path)), Path(model_path))
    model.export(str(Path(output_dir) / IR_NAME), format="openvino", verbose=False)


if __name__ == "__main__":
    _export(*sys.argv[1:])
