"""Can the class be guessed without looking at the pictures? Files in, a report and a figure out.

    report = measure_confounds(samples, seed=42)
    report.accuracy        # 1.0 where every generated image is 559 × 559 and no photograph is
    report.warning         # one sentence, or ""

A small decision tree sees nothing but size, format, compression, file size, EXIF presence and
source. Where it beats chance clearly, a network may learn the same instead of the pictures.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from real_vs_ai.preparation.files import rank
from real_vs_ai.preparation.manifest import ManifestRow
from real_vs_ai.preparation.parallel import chunked, run_chunks
from real_vs_ai.reporting import format_table

CONFOUNDS_NAME = "confounds.json"
_MOST_IMAGES = 5_000
_FOLDS = 5
_CHUNK_FILES = 256
# Share of the way from chance to certainty: 0.75 balanced accuracy with two classes.
_WARNING_SHARE = 0.5
_Z_95 = 1.96
_SHORTER_SIDE = "shorter side"


@dataclass(frozen=True, slots=True)
class FileTraits:
    """What a file shows before its picture is looked at.

    Attributes:
        label: Its class.
        source: The data set it came from; "" for collections, each of which has one class.
        width: Upright width in pixels.
        height: Upright height in pixels.
        format: "JPEG", "PNG", …
        compression: Sums of a JPEG's luma and chroma quantisation tables (lower is better
            quality); zeros for others.
        file_size: In bytes.
        exif: Whether it carries EXIF data.
    """

    label: str
    source: str
    width: int
    height: int
    format: str
    compression: tuple[int, int]
    file_size: int
    exif: bool


@dataclass(frozen=True)
class ConfoundReport:
    """How well the class can be guessed from files alone.

    Attributes:
        images: How many images were looked at, at most 5,000, drawn by their contents.
        counts: Of them, by class.
        chance: Balanced accuracy of guessing.
        accuracy: Balanced accuracy of the tree that sees everything, cross-validated.
        low: Lower end of its 95 % interval.
        high: Upper end.
        by_trait: Balanced accuracy of a tree that sees one trait alone.
        by_class: Shares of each class that have a trait: "PNG", "square", "EXIF", …, and
            "shorter side", its median in pixels.
        warning: One sentence where the class can be guessed, otherwise "".
    """

    images: int
    counts: Mapping[str, int]
    chance: float
    accuracy: float
    low: float
    high: float
    by_trait: Mapping[str, float]
    by_class: Mapping[str, Mapping[str, float]]
    warning: str

    def __str__(self) -> str:
        text = (
            f"WARNING: {self.warning}"
            if self.warning
            else f"Confounds: from size, format, compression and the like alone the class is "
            f"guessed with balanced accuracy {self.accuracy:.2f} (chance {self.chance:.2f})."
        )
        headers = ["class", *next(iter(self.by_class.values()))]
        body = [
            [label, *(f"{v:.0f}" if name == _SHORTER_SIDE else f"{v:.0%}" for name, v in s.items())]
            for label, s in self.by_class.items()
        ]
        return f"{text}\n\n{format_table(headers, body)}"


def sample_rows(rows: Sequence[ManifestRow], *, seed: int) -> list[ManifestRow]:
    """At most 5,000 rows, the same ones whatever their order."""
    if len(rows) > _MOST_IMAGES:
        rows = sorted(rows, key=lambda row: (rank(seed, row.sha256), row.path))[:_MOST_IMAGES]
    return sorted(rows, key=lambda row: row.path)


def read_traits(
    rows: Sequence[ManifestRow], *, root: Path, workers: int, cluster: str | None
) -> list[FileTraits]:
    """Look at the files of some rows, whose paths are relative to `root`."""
    paths = [row.path for row in rows]
    results = run_chunks(
        _read_chunk,
        chunked(paths, size=_CHUNK_FILES),
        str(root.resolve()),
        n_items=len(paths),
        workers=workers,
        cluster=cluster,
        description="Comparing files",
        unit="file",
    )
    return [
        FileTraits(
            row.label,
            "" if row.collection else row.source,
            row.width,
            row.height,
            row.format,
            *traits,
        )
        for row, traits in zip(rows, results, strict=True)
    ]


def _read_chunk(paths: Sequence[str], root: str) -> list[tuple[tuple[int, int], int, bool]]:
    return [_read_one(Path(root, path)) for path in paths]


def _read_one(path: Path) -> tuple[tuple[int, int], int, bool]:
    data = path.read_bytes()
    compression = (0, 0)
    exif = False
    if data.startswith(b"\xff\xd8"):
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            tables = [sum(table) for _, table in sorted(image.quantization.items())]
            compression = (tables[0], tables[-1]) if tables else (0, 0)
            exif = "exif" in image.info
    else:
        exif = b"eXIf" in data[:65_536] or b"EXIF" in data[:65_536]
    return compression, len(data), exif


def measure_confounds(samples: Sequence[FileTraits], *, seed: int) -> ConfoundReport | None:
    """Cross-validate small decision trees on the files' traits; None with too few images."""
    counts = dict(sorted(Counter(sample.label for sample in samples).items()))
    if len(counts) < 2 or min(counts.values()) < _FOLDS:
        return None
    labels = np.array([sample.label for sample in samples])
    traits = _trait_columns(samples)
    chance = 1 / len(counts)
    by_trait = {
        name: _balanced_accuracy(columns, labels, seed=seed) for name, columns in traits.items()
    }
    everything = np.hstack(list(traits.values()))
    accuracy = _balanced_accuracy(everything, labels, seed=seed)
    error = _Z_95 * (max(accuracy * (1 - accuracy), 1e-9) / len(samples)) ** 0.5
    low, high = max(accuracy - error, 0.0), min(accuracy + error, 1.0)
    limit = chance + _WARNING_SHARE * (1 - chance)
    warning = _warning(by_trait, accuracy, chance=chance, limit=limit) if low > limit else ""
    return ConfoundReport(
        len(samples), counts, chance, accuracy, low, high, by_trait, _by_class(samples), warning
    )


def _by_class(samples: Sequence[FileTraits]) -> dict[str, dict[str, float]]:
    """Shares of each class that have a trait, and the median of the shorter side in pixels."""
    formats = sorted({sample.format for sample in samples})
    shares = {}
    for label in sorted({sample.label for sample in samples}):
        members = [sample for sample in samples if sample.label == label]
        shares[label] = {
            **{name: sum(s.format == name for s in members) / len(members) for name in formats},
            "square": sum(s.width == s.height for s in members) / len(members),
            "EXIF": sum(s.exif for s in members) / len(members),
            _SHORTER_SIDE: float(np.median([min(s.width, s.height) for s in members])),
        }
    return shares


def _warning(by_trait: Mapping[str, float], accuracy: float, *, chance: float, limit: float) -> str:
    telling = sorted((-value, name) for name, value in by_trait.items() if value > limit)
    listed = ", ".join(f"{name} ({-value:.2f} alone)" for value, name in telling)
    return (
        f"without looking at the pictures the class is guessed with balanced accuracy "
        f"{accuracy:.2f} (chance {chance:.2f})"
        + (f", from {listed}" if listed else "")
        + ". A model may learn that instead. DataMerger.py --equalise PIXELS encodes all alike."
    )


def _trait_columns(samples: Sequence[FileTraits]) -> dict[str, np.ndarray]:
    """Numbers for each trait, each of shape (n_images, n_columns)."""

    def numbers(values: Sequence) -> np.ndarray:
        return np.array(values, dtype=np.float64).reshape(len(samples), -1)

    def one_hot(values: Sequence[str]) -> np.ndarray:
        names = sorted(set(values))
        return numbers([[value == name for name in names] for value in values])

    return {
        "size in pixels": numbers([(s.width, s.height) for s in samples]),
        "square": numbers([s.width == s.height for s in samples]),
        "file format": one_hot([s.format for s in samples]),
        "JPEG quality": numbers([s.compression for s in samples]),
        "file size": numbers([s.file_size for s in samples]),
        "EXIF presence": numbers([s.exif for s in samples]),
        "source": one_hot([s.source for s in samples]),
    }


def _balanced_accuracy(columns: np.ndarray, labels: np.ndarray, *, seed: int) -> float:
    # Imported here: scikit-learn takes a second to load.
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=4,
        min_samples_leaf=max(1, len(labels) // 200),
        class_weight="balanced",
        random_state=seed,
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    predicted = cross_val_predict(tree, columns, labels, cv=folds)
    return float(balanced_accuracy_score(labels, predicted))


def write_confounds(report: ConfoundReport, folder: Path) -> None:
    """Write `confounds.json`."""
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    (folder / CONFOUNDS_NAME).write_text(text + "\n", encoding="utf-8")
