"""Read the open watermarks that generators' published scripts hide in pixels.

The method is "dwtDct" of the package invisible-watermark: a picture's blocks of 8 × 8 pixels carry
the bits of a message one after the other, row by row, over and over. A block's bit is in the
largest of the 4 × 4 averages (of a one-level Haar transform, which is all that the method does) of
its chrominance U, by which half of a step of 36 it lies in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from real_vs_ai.core.messages import Message
from real_vs_ai.provenance.findings import Code, Finding, made_with

_BLOCK = 8
_STEP = 36
# The scripts mark no smaller picture.
_FEWEST_PIXELS = 256 * 256
# A megapixel has 120 blocks for each bit of the longest message; a larger picture is read in part.
_MOST_BLOCKS = 16_384
_FORGERY = Message("forgery.watermark")


@dataclass(frozen=True)
class _Mark:
    """One script's watermark.

    Attributes:
        swaps: Bits that may be taken for another one at most, of each of the two values. A picture
            without the mark agrees so well by chance once in 10⁸ or more rarely.
        offset: What the script's chrominance begins at: 128 in whole numbers, else 0.5.
        blue_first: Whether it took red for blue, as diffusers did.
    """

    generator: str
    bits: np.ndarray
    swaps: int
    offset: float
    blue_first: bool = False


def _text_bits(text: str) -> np.ndarray:
    return np.unpackbits(np.frombuffer(text.encode("ascii"), dtype=np.uint8))


# Without leading zeros: the scripts lose them, too.
_SDXL = np.array([*"101100111110110010010000011110111011000110011110"], dtype=np.uint8)
_FLUX = np.array([*"1010101111111010000111100111001111010100101110"], dtype=np.uint8)
_MARKS = (
    _Mark("Stable Diffusion", _text_bits("StableDiffusionV1"), swaps=15, offset=128),
    _Mark("Stable Diffusion 2", _text_bits("SDV2"), swaps=0, offset=128),
    _Mark("Stable Diffusion XL", _SDXL, swaps=2, offset=0.5),
    _Mark("Stable Diffusion XL", _SDXL, swaps=2, offset=0.5, blue_first=True),
    _Mark("FLUX", _FLUX, swaps=1, offset=0.5),
)


def find_watermarks(image: Image.Image) -> list[Finding]:
    """The first known watermark in a picture's pixels.

    Args:
        image: Mode RGB, as it was stored: neither turned nor resized.
    """
    too_small = image.width * image.height < _FEWEST_PIXELS or min(image.size) < _BLOCK
    if too_small or image.width > _BLOCK * _MOST_BLOCKS:
        return []
    blocks, first = _averages(image)
    extremes = {order: _extremes(blocks, blue_first=order) for order in (False, True)}
    for mark in _MARKS:
        lowest, highest = (value + 2 * mark.offset for value in extremes[mark.blue_first])
        right = _count_right(np.maximum(highest, -lowest), first, mark.bits)
        if right >= len(mark.bits) - 2 * mark.swaps:
            counts = {"right": right, "bits": len(mark.bits)}
            text = Message("finding.watermark", tool=mark.generator, **counts)
            facts = {"forgery": _FORGERY, "field": "pixels"}
            return [made_with(mark.generator, "watermark", text, code=Code.WATERMARK, **facts)]
    return []


def _averages(image: Image.Image) -> tuple[np.ndarray, int]:
    """Averages of 2 × 2 pixels of the blocks in the middle rows, and the first block's number.

    Returns:
        Shape (16, n_blocks, 3), float32.
    """
    across, down = image.width // _BLOCK, image.height // _BLOCK
    rows = min(down, _MOST_BLOCKS // across)
    top = (down - rows) // 2
    band = image.crop((0, top * _BLOCK, across * _BLOCK, (top + rows) * _BLOCK)).reduce(2)
    side = _BLOCK // 2
    pixels = np.asarray(band, dtype=np.float32).reshape(rows, side, across, side, 3)
    return pixels.transpose(1, 3, 0, 2, 4).reshape(side * side, rows * across, 3), top * across


def _extremes(blocks: np.ndarray, *, blue_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each block's lowest and highest U, each of shape (n_blocks,).

    Without the offset, and twice as large, as the Haar transform makes it. The first average of a
    block never carries the bit.
    """
    # Blue less luminance, of red, green and blue.
    weights = [-0.299, -0.587, 1 - 0.114][:: -1 if blue_first else 1]
    chrominance = blocks[1:] @ np.array(weights, dtype=np.float32) * (2 * 0.492)
    return chrominance.min(axis=0), chrominance.max(axis=0)


def _count_right(largest: np.ndarray, first: int, bits: np.ndarray) -> int:
    """How many bits are as in the message, if as many are taken for ones as it has.

    That takes out what all blocks have in common: in most pictures, nearly all say 0.
    """
    ones = (largest % _STEP > _STEP / 2).astype(np.float64)
    position = (first + np.arange(len(ones))) % len(bits)
    votes = np.bincount(position, minlength=len(bits))
    share = np.bincount(position, ones, len(bits)) / np.maximum(votes, 1)
    read = np.zeros(len(bits), dtype=np.uint8)
    read[np.argsort(share, kind="stable")[len(bits) - int(bits.sum()) :]] = 1
    return int((read == bits).sum())
