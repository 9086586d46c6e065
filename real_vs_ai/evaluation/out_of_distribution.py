"""Fit a model's out-of-distribution check and its classifier of thumbnails; count what fails them.

write_check(run.model, learn_check(scorer, splits, layer=layer))
share_out_of_distribution(scorer, splits["test"], metadata=metadata)
found = measure_other_images(scorer, Path("photographs"), metadata=metadata, workers=2, …)
found[0]["certain_wrong"]     # {"value": 0.02, "low": …, "high": …}
"""

from __future__ import annotations

import dataclasses
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from real_vs_ai.config import SEED
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_splits, find_splits
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.calibration import share_interval
from real_vs_ai.evaluation.metrics import Table, interval_text
from real_vs_ai.evaluation.scorer import Scorer, predict_images
from real_vs_ai.files import list_files
from real_vs_ai.images import ImageError, open_image, resize_image
from real_vs_ai.model_file import ModelMetadata, calibrate, read_metadata
from real_vs_ai.out_of_distribution import (
    OutOfDistributionCheck,
    Sample,
    compare_size,
    fit_check,
    read_check,
    write_check,
)
from real_vs_ai.parallel import Pool, chunked, run_chunks
from real_vs_ai.pixel_classifier import fit_classifier
from real_vs_ai.predictions import Predictions
from real_vs_ai.reporting import format_table
from real_vs_ai.verdict import decide

if TYPE_CHECKING:
    import keras

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# A covariance of more features would weigh more than the network.
_WIDEST = 1280
OTHER_IMAGES_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong without the check",
    "accuracy_unchecked": "accuracy without the check",
}


def learn_check(
    scorer: Scorer, splits: Mapping[str, DecodedImages], *, layer: str
) -> OutOfDistributionCheck:
    """Fit the check on some thousand training and validation images as the network sees them.

    Args:
        scorer: Of the model as it is saved, with that layer's features.
    """
    validation = splits["validation"]
    # The report asks about every validation image anyway, but about no training image.
    train = splits["train"].take(_draw(splits["train"]))
    samples = [
        _sample(scorer, train, np.arange(len(train))),
        _sample(scorer, validation, _draw(validation)),
    ]
    return fit_check(*samples, layer=layer)


def share_out_of_distribution(
    scorer: Scorer, decoded: DecodedImages, *, metadata: ModelMetadata
) -> dict[str, Any]:
    """ "n", how many images were drawn, and the "share" of them that is out-of-distribution."""
    drawn = _draw(decoded)
    found = find_out_of_distribution(scorer, decoded, drawn, metadata=metadata)
    return {"n": len(drawn), "share": float(found.mean())}


def find_out_of_distribution(
    scorer: Scorer, decoded: DecodedImages, positions: np.ndarray, *, metadata: ModelMetadata
) -> np.ndarray:
    """Find the out-of-distribution images among labelled ones.

    Args:
        positions: Which of them to look at, shape (n,).
        metadata: Its `training_images` tell the training images' sizes.

    Returns:
        Shape (n,), bool.
    """
    seen = metadata.model_input.seen_sizes(decoded.widths[positions], decoded.heights[positions])
    sizes = zip(*(sides.tolist() for sides in seen), strict=True)
    found = np.array([bool(compare_size(*size, metadata.training_images)) for size in sizes])
    if scorer.check is not None:
        sample = _sample(scorer, decoded, positions)
        reasons = scorer.check.compare(sample.features, sample.pixels)
        found |= [reason is not None for reason in reasons]
    return found


def measure_other_images(
    scorer: Scorer, folder: Path, *, metadata: ModelMetadata, workers: int, max_memory_bytes: int
) -> list[dict[str, Any]]:
    """Judge labelled images as the app would, and count how often it would be wrong and certain.

    Args:
        folder: Holds a folder for each class, or splits of such; training images are left out.
        metadata: Of the model, with its calibration and the training images' sizes.

    Returns:
        For each split "data" (its name), "n" images, and the shares that `OTHER_IMAGES_TITLES`
        names, each with Wilson's 95 % interval. The first four add up to 1.

    Raises:
        FileNotFoundError: There is no such folder.
        InputError: It holds other classes, or nothing that can be read.
    """
    splits = decode_splits(
        find_splits(folder), metadata=metadata, workers=workers, max_memory_bytes=max_memory_bytes
    )
    judged = {split: decoded for split, decoded in splits.items() if split != "train"}
    if not all(map(len, judged.values())):
        raise InputError(f"Expected images that can be read in {folder}, found none.")
    name = folder.resolve().name
    counted = []
    for split, decoded in judged.items():
        every = np.arange(len(decoded))
        found = find_out_of_distribution(scorer, decoded, every, metadata=metadata)
        rows = predict_images(scorer, decoded, split=split, model_input=metadata.model_input)
        data = name if len(judged) == 1 else f"{name}, {split}"
        counted.append({"data": data, "n": len(rows), **_count_verdicts(rows, found, metadata)})
    return counted


def _count_verdicts(
    predictions: Predictions, found: np.ndarray, metadata: ModelMetadata
) -> dict[str, Any]:
    """The shares of `OTHER_IMAGES_TITLES`; `found` says which are out-of-distribution."""
    calibrated = calibrate(predictions.probabilities, temperature=metadata.temperature)
    decided, labels = decide(calibrated, metadata), predictions.labels
    certain = decided >= 0
    shares = {
        "out_of_distribution": found,
        "uncertain": ~found & ~certain,
        "certain_right": ~found & certain & (decided == labels),
        "certain_wrong": ~found & certain & (decided != labels),
        "certain_wrong_unchecked": certain & (decided != labels),
        "accuracy_unchecked": calibrated.argmax(axis=1) == labels,
    }
    return {key: share_interval(which, method="wilson") for key, which in shares.items()}


def other_images_table(found: Sequence[Mapping]) -> Table:
    """The shares of images of another kind."""
    rows = [
        [title, *(interval_text(part[key]) for part in found)]
        for key, title in OTHER_IMAGES_TITLES.items()
    ]
    return ["share of the images", *(f"{p['data']} (n = {p['n']:,})" for p in found)], rows


def features_layer(model: keras.Model) -> keras.layers.Layer:
    """The last layer before the softmax that gives one vector, of a size to store a covariance of.

    Dropout and noise are passed over: they do nothing to an image that is judged.
    """
    import keras

    idle = (keras.layers.Dropout, keras.layers.GaussianNoise)
    candidates = [x for x in model.layers[-2::-1] if not isinstance(x, idle)]
    small = (x for x in candidates if len(x.output.shape) == 2 and x.output.shape[1] <= _WIDEST)
    return next(small, candidates[0])


def _sample(scorer: Scorer, decoded: DecodedImages, positions: np.ndarray) -> Sample:
    """What the network sees of some images: the mean of their crops' features, and their crops."""
    _, features = scorer.outputs(decoded, description=None)
    drawn = decoded.take(positions)
    return Sample(features[positions].mean(axis=1), drawn.pixels, drawn.labels)


def _draw(decoded: DecodedImages) -> np.ndarray:
    """Positions of some thousand images."""
    most = min(MOST_IMAGES, max(1, _MOST_BYTES // decoded.pixels[:1].nbytes))
    return decoded.images.draw(most)


_FILTERS = (
    Image.Resampling.BOX,
    Image.Resampling.BILINEAR,
    Image.Resampling.HAMMING,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.NEAREST,
)
# Pillow's own quality half of the time: thumbnails are often saved with it, and so is CIFAKE.
_USUAL_QUALITY = 75
_QUALITIES = (50, 95)
_PER_PICTURE = 3
_MOST_PICTURES = 3000
_PICTURES_OF_CHUNK = 16
_MOST_IMAGES = 8000
# One picture in so many is held back, to state how many thumbnails still pass.
_HELD_BACK = 4


def fit_on_thumbnails(
    model_path: Path, *, data: Path, folders: Sequence[Path], workers: int, max_memory_bytes: int
) -> str:
    """Fit the classifier, store it in the model file, and say what it does.

    Half of the validation images are fitted on; the others set the limit.

    Args:
        model_path: The `.h5` file, with an out-of-distribution check from its training.
        data: Holds the model's own validation images.
        folders: Pictures of other kinds, in any arrangement.

    Raises:
        InputError: The model has no check or judges crops, or there are too few images.
    """
    metadata, check = read_metadata(model_path), read_check(model_path)
    if check is None or metadata.model_input.is_crops:
        raise InputError(
            f"Expected a model of whole images that ModelTraining.py has given an "
            f"out-of-distribution check, found none in {model_path}."
        )
    own = _validation_pixels(data, metadata, workers=workers, max_memory_bytes=max_memory_bytes)
    side = round(metadata.training_images.get("scale", {}).get("median", metadata.image_size))
    others, held_back = make_thumbnails(
        folders, side=side, image_size=metadata.image_size, workers=workers
    )
    classifier = fit_classifier(own[::2], others, own[1::2], seed=SEED)
    write_check(model_path, dataclasses.replace(check, classifier=classifier))
    tested = {
        "validation images that pass": own[1::2],
        "thumbnails of held-back pictures that pass": held_back,
    }
    rows = [[name, len(part), classifier.accepts(part).mean()] for name, part in tested.items()]
    return format_table(["", "images", "share"], rows, title=f"Pixel classifier in {model_path}")


def make_thumbnails(
    folders: Sequence[Path], *, side: int, image_size: int, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce pictures in many ways, as the network's input.

    Args:
        folders: Pictures in any arrangement; as many are drawn from each.
        side: Of most thumbnails, in pixels.
        image_size: Of the network's input, in pixels.

    Returns:
        Thumbnails to fit on and thumbnails of held-back pictures, each of shape (n, image_size,
        image_size, 3), uint8.

    Raises:
        InputError: There are too few pictures that can be read.
    """
    generator = np.random.default_rng(SEED)
    drawn = []
    for folder in folders:
        paths = list_files(folder)
        most = -(-_MOST_PICTURES // len(folders))
        drawn += [folder / paths[i] for i in generator.permutation(len(paths))[:most]]
    made = run_chunks(
        _reduce_chunk,
        chunked(drawn, size=_PICTURES_OF_CHUNK),
        side,
        image_size,
        n_items=len(drawn),
        pool=Pool(workers),
        description="Reducing",
        unit="picture",
        fewest=2 * _PICTURES_OF_CHUNK,
    )
    parts = [np.stack(thumbnails) for thumbnails in made if thumbnails]
    if len(parts) < 2 * _HELD_BACK:
        raise InputError(
            f"Expected at least {2 * _HELD_BACK} pictures that can be read in "
            f"{', '.join(map(str, folders))}, found {len(parts)}."
        )
    held_back = parts[::_HELD_BACK]
    others = [part for index, part in enumerate(parts) if index % _HELD_BACK]
    return np.concatenate(others), np.concatenate(held_back)


def draw_thumbnail(pixels: np.ndarray, *, side: int, generator: np.random.Generator) -> np.ndarray:
    """Reduce a picture in a way drawn at random: cut square or squeezed, and then stored.

    Args:
        pixels: Shape (height, width, 3), uint8.
        side: Of the thumbnail, in pixels.
        generator: Draws.
    """
    image = Image.fromarray(pixels)
    if generator.random() < 0.7:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        image = image.crop((left, top, left + short, top + short))
    method = _FILTERS[generator.integers(len(_FILTERS))]
    image = image.resize((side, side), method)
    way = generator.random()
    if way < 0.2:
        return np.asarray(image)
    usual = generator.random() < 0.5
    quality = _USUAL_QUALITY if usual else int(generator.integers(*_QUALITIES))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if way < 0.9 else "WEBP", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def _reduce_chunk(paths: Sequence[Path], side: int, image_size: int) -> list[list[np.ndarray]]:
    return [_reduce(path, side=side, image_size=image_size) for path in paths]


def _reduce(path: Path, *, side: int, image_size: int) -> list[np.ndarray]:
    """Some thumbnails of one picture as the network's input; none where it cannot be read."""
    try:
        pixels = open_image(path)
    except (ImageError, OSError):
        return []
    generator = np.random.default_rng(zlib.crc32(path.name.encode("utf-8", "surrogateescape")))
    # Most at the very size of the training images, where nothing else tells them.
    sides = [side] * (_PER_PICTURE - 1) + [int(side * generator.uniform(0.75, 1.4))]
    thumbnails = (draw_thumbnail(pixels, side=max(8, s), generator=generator) for s in sides)
    return [resize_image(thumbnail, image_size) for thumbnail in thumbnails]


def _validation_pixels(
    data: Path, metadata: ModelMetadata, *, workers: int, max_memory_bytes: int
) -> np.ndarray:
    splits = find_splits(data)
    if "validation" not in splits:
        raise InputError(f"Expected a validation folder in {data}, found {', '.join(splits)}.")
    (decoded,) = decode_splits(
        {"validation": splits["validation"]},
        metadata=metadata,
        workers=workers,
        max_memory_bytes=max_memory_bytes,
    ).values()
    pixels = decoded.take(decoded.images.draw(_MOST_IMAGES)).inputs
    # Drawn class by class: shuffled, so that both halves hold every class.
    return pixels[np.random.default_rng(SEED).permutation(len(pixels))]
