"""Run a model over many images: verdicts for reports, and a layer's outputs for training.

Every verdict of a report comes from `serving.judge`, in float32, whatever the processor has. A
split is judged once, without thresholds; its rows then have the verdicts of any.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from real_vs_ai.core.errors import InputError, RealVsAIError
from real_vs_ai.core.images import decode_image
from real_vs_ai.core.reporting import progress
from real_vs_ai.dataset.labelled_images import LabelledImages, manifest_column
from real_vs_ai.models.keras_models import sees_gpu
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.perturbations.web_changes import Perturbation
from real_vs_ai.serving.detector import Detector, PreparedImage
from real_vs_ai.serving.image_sources import ImageSource
from real_vs_ai.serving.judge import Answer, judge_files
from real_vs_ai.verdicts.predictions import Predictions, as_texts, check_softmax
from real_vs_ai.verdicts.verdict import Verdict, recalibrate, without_thresholds

if TYPE_CHECKING:
    import keras

# One batch of float32 pixels; a ResNet101's activations take some 60 times as much.
_BATCH_PIXELS = 2**20
_LARGEST_BATCH = 256
# Network inputs of changed images that are in memory at a time.
_TOGETHER_BYTES = 192 * 2**20
_MOST_TOGETHER = 64


@dataclass(frozen=True)
class JudgedSplit:
    """A split's images with their verdicts at no thresholds, so that any can be applied.

    Attributes:
        images: Those that can be judged.
        answers: Of each of them.
        unreadable: (path, reason) of the others.
    """

    split: str
    images: LabelledImages
    answers: tuple[Answer, ...]
    unreadable: tuple[tuple[str, str], ...]

    @property
    def makers(self) -> np.ndarray:
        """What the manifest says made each image, a generator or a camera, or ""; (n,), object."""
        listed = manifest_column(self.images.root, "generator")
        return as_texts(listed.get(path, "") for path in self.images.paths)

    def rows(self, metadata: ModelMetadata) -> Predictions:
        """The verdicts with the calibration and thresholds of this metadata."""
        verdicts = [
            recalibrate(made, metadata) for answer in self.answers if (made := answer.verdict)
        ]
        sizes = [(answer.width or 0, answer.height or 0) for answer in self.answers]
        return _rows(self.images, verdicts, split=self.split, sizes=sizes, metadata=metadata)


def _rows(
    images: LabelledImages,
    verdicts: Sequence[Verdict],
    *,
    split: str,
    sizes: Sequence[tuple[int, int]],
    metadata: ModelMetadata,
) -> Predictions:
    reasons = [str(v.reasons[0].code) if v.reasons else "" for v in verdicts]
    outputs = np.array([v.uncalibrated for v in verdicts], dtype=np.float64)
    widths, heights = np.array(sizes, dtype=np.int64).reshape(-1, 2).T
    return Predictions(
        class_names=images.class_names,
        paths=as_texts(f"{images.root.name}/{path}" for path in images.paths),
        splits=as_texts([split] * len(images)),
        labels=np.asarray(images.labels, dtype=np.int64),
        sources=as_texts(images.sources),
        widths=widths,
        heights=heights,
        verdicts=as_texts(verdict.label for verdict in verdicts),
        reasons=as_texts(reasons),
        probabilities=outputs.reshape(len(images), len(images.class_names)),
        temperature=metadata.temperature,
        offset=metadata.offset,
    )


def open_detector(model_path: Path, metadata: ModelMetadata) -> Detector:
    """The detector of a model file, which judges in float32 and by this metadata."""
    # Keras reads more formats than HDF5.
    engine = None if h5py.is_hdf5(model_path) else "keras"
    return Detector.open_file(
        model_path, metadata, engine=engine, precision="f32", for_batches=True
    )


def judge_split(
    detector: Detector, images: LabelledImages, *, split: str, workers: int
) -> JudgedSplit:
    """Judge every image of a split.

    Raises:
        InputError: No image can be judged, or the outputs are no softmax over the classes.
    """
    metadata = detector.metadata
    if images.class_names != metadata.class_names:
        raise InputError(
            f"Expected the model's classes {', '.join(metadata.class_names)} in {images.root}, "
            f"found {', '.join(images.class_names)}."
        )
    open_ended = detector.with_metadata(without_thresholds(metadata))
    sources = (ImageSource(path, str(images.root / path)) for path in images.paths)
    answers: list[Answer] = []
    unreadable: list[tuple[str, str]] = []
    kept: list[int] = []
    with progress(description=f"Judging {split}", unit="image", total=len(images)) as bar:
        judged = judge_files(sources, detector=open_ended, workers=workers)
        for position, answer in enumerate(judged):
            bar.update(1)
            if answer.verdict is None:
                unreadable.append((images.paths[position], answer.error))
                continue
            if not answers:
                _check_outputs(answer.verdict, images)
            kept.append(position)
            verdict = _without_parts(answer.verdict)
            answers.append(dataclasses.replace(answer, verdict=verdict, findings=(), notes=()))
    if not answers:
        raise InputError(
            f"Expected images that can be read in {images.root}, found none "
            f"({len(unreadable)} could not be read)."
        )
    _check_outputs(verdict, images)
    return JudgedSplit(split, images.take(kept), tuple(answers), tuple(unreadable))


def _check_outputs(verdict: Verdict, images: LabelledImages) -> None:
    check_softmax(np.array([verdict.uncalibrated]), n_classes=len(images.class_names))


def _without_parts(verdict: Verdict) -> Verdict:
    """Of twenty thousand images, what the report does not need would fill the memory."""
    return dataclasses.replace(verdict, crops=())


def judge_changed(
    detector: Detector,
    images: LabelledImages,
    changes: Sequence[Perturbation],
    *,
    split: str,
    workers: int,
) -> list[Predictions]:
    """Judge images after each of some changes.

    Only as many images are decoded at a time as there are workers: of the others, only what the
    network sees is held.

    Returns:
        The verdicts on all images for each change; their sizes are those of the unchanged images.

    Raises:
        ImageError: An image cannot be decoded.
    """
    size = detector.metadata.image_size
    of_image = len(changes) * detector.inputs_of_an_image * size * size * 3
    together = max(1, min(_MOST_TOGETHER, _TOGETHER_BYTES // of_image))

    def prepare(path: str) -> tuple[tuple[int, int], list[PreparedImage]]:
        image = decode_image(images.root / path)
        # By the name alone, so that noise is the same in any order and number of workers.
        seed = zlib.crc32(path.encode("utf-8", "surrogateescape"))
        looks = [detector.prepare(change.apply(image.pixels, seed=seed)) for change in changes]
        return (image.width, image.height), looks

    sizes: list[tuple[int, int]] = []
    verdicts: list[list[Verdict]] = [[] for _ in changes]
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="decode") as threads,
        progress(description="Changing and judging", unit="image", total=len(images)) as bar,
    ):
        for start in range(0, len(images), together):
            prepared = list(threads.map(prepare, images.paths[start : start + together]))
            sizes += [of_image for of_image, _ in prepared]
            looks = [look for _, of_image in prepared for look in of_image]
            judged = list(map(_without_parts, detector.judge(looks)))
            for index, of_change in enumerate(verdicts):
                of_change += judged[index :: len(changes)]
            bar.update(len(prepared))
    metadata = detector.metadata
    return [
        _rows(images, of_change, split=split, sizes=sizes, metadata=metadata)
        for of_change in verdicts
    ]


def middle_view(path: Path, metadata: ModelMetadata) -> np.ndarray:
    """What the network sees of an image, or the middle crop: (size, size, 3), uint8."""
    views = metadata.model_input.prepare(decode_image(path))
    return views[len(views) // 2]


def open_features(
    model: keras.Model, model_path: Path, *, layer: str
) -> Callable[[np.ndarray], np.ndarray]:
    """A function from a network's inputs to the outputs of one of its layers.

    OpenVINO computes the model's file: it starts in a second, where Keras traces a deep network for
    many, and is faster on CPUs. Keras computes on GPUs, and what OpenVINO cannot read.

    Args:
        model_path: A file of the same network.

    Returns:
        Takes RGB pixels, 0 to 255, shape (n_inputs, image_size, image_size, 3), perhaps a memory
        map; returns shape (n_inputs, n_features), float64.
    """
    n_classes = model.output_shape[-1]
    predict = None if sees_gpu() else _predict_by_file(model_path, model.input_shape[1], layer)
    if predict is None:
        import keras

        outputs = [model.outputs[0], model.get_layer(layer).output]
        both = keras.layers.Concatenate()(outputs)
        predict = keras.Model(model.inputs[0], both).predict_on_batch

    def compute(pixels: np.ndarray) -> np.ndarray:
        size = int(np.clip(_BATCH_PIXELS // pixels.shape[1] ** 2, 1, _LARGEST_BATCH))
        batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
        outputs = [predict(np.asarray(batch, dtype=np.float32)) for batch in batches]
        return np.concatenate(outputs).astype(np.float64)[:, n_classes:]

    return compute


def _predict_by_file(
    model_path: Path, image_size: int | None, layer: str
) -> Callable[[np.ndarray], np.ndarray] | None:
    """The file compiled by OpenVINO, or None where that cannot be."""
    if image_size is None:
        return None
    try:
        from real_vs_ai.serving.openvino_engine import OpenVINOEngine

        engine = OpenVINOEngine(
            model_path, image_size=image_size, precision="f32", for_batches=True, layer=layer
        )
        engine.open()
    except (ImportError, RealVsAIError, RuntimeError, OSError):
        return None
    return lambda pixels: engine.predict(pixels.astype(np.uint8))
