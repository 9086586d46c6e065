"""Draw a sheet of originals, each followed by its augmented copies.

draw_contact_sheet(rows, train_dir=Path("data/train"), folder=Path("data/augmented_train"), seed=42)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from real_vs_ai.images import ImageError, open_image
from real_vs_ai.preparation.files import rank
from real_vs_ai.preparation.manifest import ManifestRow

CONTACT_SHEET_PATH = Path("figures") / "augmentation.png"
_TILE, _GAP = 112, 4
_ORIGINALS, _COPIES_OF_EACH = 8, 5


def draw_contact_sheet(
    rows: Sequence[ManifestRow], *, train_dir: Path, folder: Path, seed: int
) -> None:
    """Write `figures/augmentation.png`: a line of tiles for each of a few originals of each class.

    Args:
        rows: The copies; `origin` is relative to the parent of `train_dir`.
        train_dir: Holds the originals.
        folder: Holds the copies, and gets the picture.
        seed: Chooses the originals.
    """
    by_origin: dict[str, list[ManifestRow]] = {}
    for row in rows:
        by_origin.setdefault(row.origin, []).append(row)
    chosen = sorted(_choose(by_origin, seed=seed))
    columns = 1 + min(_COPIES_OF_EACH, max(len(by_origin[origin]) for origin in chosen))
    step = _TILE + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, len(chosen) * step + _GAP), "white")
    for line, origin in enumerate(chosen):
        paths = [train_dir.parent / origin]
        paths += [folder / row.path for row in by_origin[origin][: columns - 1]]
        for column, path in enumerate(paths):
            sheet.paste(_tile(path), (column * step + _GAP, line * step + _GAP))
    (folder / CONTACT_SHEET_PATH).parent.mkdir()
    sheet.save(folder / CONTACT_SHEET_PATH)


def _choose(by_origin: dict[str, list[ManifestRow]], *, seed: int) -> list[str]:
    labels = sorted({members[0].label for members in by_origin.values()})
    each = max(1, _ORIGINALS // len(labels))
    chosen = []
    for label in labels:
        origins = [origin for origin, members in by_origin.items() if members[0].label == label]
        # Those with the most copies show the most.
        origins.sort(key=lambda origin: (-len(by_origin[origin]), rank(seed, origin)))
        chosen += origins[:each]
    return chosen


def _tile(path: Path) -> Image.Image:
    try:
        image = Image.fromarray(open_image(path))
    except (ImageError, OSError):
        return Image.new("RGB", (_TILE, _TILE), "grey")
    scale = _TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    # Small images are enlarged without smoothing, so that their real pixels can be seen.
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    tile = Image.new("RGB", (_TILE, _TILE), "white")
    tile.paste(image.resize(size, method))
    return tile
