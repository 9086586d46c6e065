"""List and decode the images that a run learns from, and say how much each of them counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from real_vs_ai.core.config import SPLITS, is_augmented_name
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images
from real_vs_ai.dataset.labelled_images import LabelledImages, list_labelled_images, source_weights
from real_vs_ai.training.options import TrainingOptions

Say = Callable[[str], None]

# So many images of each held-out source give its false-alarm rate within about 5 points.
_HELD_OUT_IMAGES = 200
# Classes are weighted when the largest has this many times the images of the smallest.
_UNBALANCED = 1.1


def load_splits(options: TrainingOptions, *, say: Say) -> dict[str, DecodedImages]:
    """List and decode train, validation and (where there is one) test.

    A run that holds sources out validates on these alone, and has no test.

    Raises:
        FileNotFoundError: There is no train or validation folder.
        InputError: The splits have other classes, or no readable image of one.
    """
    splits, listed = {}, {}
    class_names = None
    for split in SPLITS:
        folder = options.data / split
        if split == "test" and not folder.is_dir():
            say(f"No {folder}: the report will be on validation images only.")
            continue
        listed[split] = list_labelled_images(folder, class_names=class_names)
        class_names = listed[split].class_names
    if options.hold_out:
        train = listed["train"]
        held, others = train.positions(options.hold_out)
        # Copies are there to learn from: a user does not upload them.
        held = held[[not is_augmented_name(train.paths[i]) for i in held]]
        validation = train.take(held).limited(_HELD_OUT_IMAGES, seed=options.seed)
        # A head leaves the held-out sources later, so that the cache serves every such run.
        learnt = train if options.stored_features else train.take(others)
        listed = {"train": learnt, "validation": validation}
    if options.source_limit:
        listed["train"] = listed["train"].limited(options.source_limit, seed=options.seed)
    for split, images in listed.items():
        splits[split] = decode_images(
            images,
            model_input=options.model_input,
            workers=options.workers,
            cache_dir=options.cache_dir,
            max_memory_bytes=int(options.memory * 2**30),
            views=options.view_options if split == "train" else None,
        )
        _check_readable(split, splits[split], say=say)
    rows = [[split, *images.images.counts.values()] for split, images in splits.items()]
    say(format_table(["images", *(class_names or ())], rows))
    train = splits["train"].images
    if options.weights == "none" and not options.frozen_epochs:
        say("Random weights: the whole network learns from the start, no frozen stage.")
    if options.balance != "classes":
        say("Every class counts the same, and in it a source by the root of its size.")
    elif image_weights(train, train, balance="classes") is not None:
        say("The classes are unbalanced: their losses are weighted.")
    return splits


def _check_readable(split: str, decoded: DecodedImages, *, say: Say) -> None:
    if decoded.failures:
        path, reason = decoded.failures[0]
        say(
            f"Left out of {split}, as unreadable: {plural(len(decoded.failures), 'file')}, "
            f"for example {path}: {reason}"
        )
    empty = [name for name, count in decoded.images.counts.items() if not count]
    if empty:
        raise InputError(
            f"Expected readable images of every class in {decoded.images.root}, "
            f"found none of {', '.join(empty)}."
        )


def image_weights(
    images: LabelledImages, train: LabelledImages, *, balance: str
) -> np.ndarray | None:
    """How much each image counts in the loss, alike in training and validation; None for alike.

    Args:
        train: The training images, whose classes decide whether they are weighted.
        balance: "classes", or another value to weigh the sources in each class too.
    """
    if balance != "classes":
        return source_weights(images.labels, images.sources)
    numbers = list(train.counts.values())
    if max(numbers) <= _UNBALANCED * min(numbers):
        return None
    by_class = np.array([sum(numbers) / (len(numbers) * number) for number in numbers])
    return by_class[images.labels]
