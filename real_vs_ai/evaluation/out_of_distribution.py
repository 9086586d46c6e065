"""Fit a model's out-of-distribution check, and count what fails it.

write_check(run.model, learn_check(scorer, splits, layer=layer))
share_out_of_distribution(scorer, splits["test"], metadata=metadata)
found = measure_other_images(scorer, Path("photographs"), metadata=metadata, workers=2, …)
found[0]["certain_wrong"]     # {"value": 0.02, "low": …, "high": …}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from real_vs_ai.config import POSITIVE_CLASS, SEED
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_splits, find_splits
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.calibration import share_interval
from real_vs_ai.evaluation.metrics import Table, interval_text
from real_vs_ai.evaluation.scorer import Scorer, predict_images
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.out_of_distribution import OutOfDistributionCheck, Sample, compare_size, fit_check
from real_vs_ai.portraits import PortraitClassifier, fit_portraits
from real_vs_ai.predictions import Predictions
from real_vs_ai.verdict import decide

if TYPE_CHECKING:
    import keras

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# A covariance of more features would weigh more than the network.
_WIDEST = 1280
# Enough to learn a kind of picture from.
_MOST_OF_SOURCE = 300
_NEITHER, _OTHER, _PORTRAIT = range(3)
OTHER_IMAGES_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong without the check",
    "accuracy_unchecked": "accuracy without the check",
}


def learn_check(
    scorer: Scorer,
    splits: Mapping[str, DecodedImages],
    *,
    layer: str,
    portraits: Sequence[str] = (),
    hold_out: Sequence[str] = (),
) -> OutOfDistributionCheck:
    """Fit the check on some thousand training and validation images as the network sees them.

    Args:
        scorer: Of the model as it is saved, with that layer's features.
        portraits: Sources of portraits, which the model shall refuse.
        hold_out: Sources that the classifier of portraits does not learn from.
    """
    validation = splits["validation"]
    # The report asks about every validation image anyway, but about no training image.
    train = splits["train"].take(_draw(splits["train"]))
    samples = [
        _sample(scorer, train, np.arange(len(train))),
        _sample(scorer, validation, _draw(validation)),
    ]
    fitted = fit_check(*samples, layer=layer)
    if not portraits:
        return fitted
    return dataclasses.replace(
        fitted, portraits=_learn_portraits(scorer, splits, names=portraits, hold_out=hold_out)
    )


def _learn_portraits(
    scorer: Scorer,
    splits: Mapping[str, DecodedImages],
    *,
    names: Sequence[str],
    hold_out: Sequence[str],
) -> PortraitClassifier | None:
    """Learn portraits from their sources, and what is none from the other real images.

    Generated images of other sources teach nothing, since their galleries hold portraits too. None
    where there are no such images to learn from.
    """
    train, validation = splits["train"].images, splits["validation"].images
    kinds = _kinds(train, names)
    kinds[np.isin(_sources(train), list(hold_out))] = _NEITHER
    taught = _draw_by_source(_sources(train), kinds != _NEITHER)
    others = np.flatnonzero(_kinds(validation, names) == _OTHER)
    is_portrait = kinds[taught] == _PORTRAIT
    if not len(others) or not len(taught) or is_portrait.all() or not is_portrait.any():
        return None
    chosen, image_size = train.take(taught), splits["train"].pixels.shape[-2]
    return fit_portraits(
        scorer.whole_features(chosen, image_size=image_size),
        is_portrait,
        _sources(chosen),
        scorer.whole_features(validation, image_size=image_size)[others],
    )


def _kinds(images: LabelledImages, names: Sequence[str]) -> np.ndarray:
    """Whether each image is of a portraits' source, another real image, or neither."""
    fake = np.array(images.class_names)[images.labels] == POSITIVE_CLASS
    is_portrait = np.isin(_sources(images), list(names))
    return np.where(is_portrait, _PORTRAIT, np.where(fake, _NEITHER, _OTHER))


def _sources(images: LabelledImages) -> np.ndarray:
    return np.array(images.sources, dtype=str)


def _draw_by_source(sources: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Positions of at most some hundred images of each source, in their order."""
    generator = np.random.default_rng(SEED)
    drawn = [
        generator.permutation(np.flatnonzero(among & (sources == name)))[:_MOST_OF_SOURCE]
        for name in np.unique(sources[among])
    ]
    return np.sort(np.concatenate(drawn)) if drawn else np.empty(0, np.int64)


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
        whole = None
        if scorer.check.portraits:
            image_size = metadata.model_input.size
            whole = scorer.whole_features(decoded.images, image_size=image_size)[positions]
        reasons = scorer.check.compare(sample.features, sample.pixels, whole=whole)
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
