"""Make collections in git repositories, and their lists, for tests."""

from __future__ import annotations

import csv
import json
import os
import subprocess
from itertools import zip_longest
from pathlib import Path

import numpy as np

from real_vs_ai.preparation.collections.collecting import collect
from real_vs_ai.preparation.collections.collection_list import read_collections
from real_vs_ai.preparation.collections.gathering import CollectOptions
from tests.preparation.material import smooth_image
from tests.serving.trivial_model import encode

SIDE = 64


def git(*arguments, folder, date: str = "2024-01-01T12:00:00Z") -> str:
    names = ("AUTHOR", "COMMITTER")
    identity = {f"GIT_{name}_{key}": "a@b.c" for name in names for key in ("NAME", "EMAIL")}
    return subprocess.run(
        ["git", "-c", "commit.gpgsign=false", *arguments],
        cwd=folder,
        env={**os.environ, **identity, "GIT_COMMITTER_DATE": date},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def commit(folder: Path, files: dict[str, bytes], date: str = "2024-01-01") -> str:
    """Commit files at a date into a repository that is made if need be; gives the commit's id."""
    write(folder, files)
    if not (folder / ".git").exists():
        git("init", "--quiet", folder=folder)
    git("add", ".", folder=folder)
    git("commit", "--quiet", "-m", "pictures", folder=folder, date=f"{date}T12:00:00Z")
    return git("rev-parse", "HEAD", folder=folder)


def let_fetch_parts(repository: Path) -> None:
    """Let others fetch single files and commits of a repository, as GitHub does."""
    for name in ("allowFilter", "allowAnySHA1InWant"):
        git("config", f"uploadpack.{name}", "true", folder=repository)


def sheet_bytes(seed: int, file_format: str = "JPEG") -> bytes:
    return encode(np.asarray(smooth_image(seed, (2 * SIDE, 2 * SIDE))), file_format, quality=90)


def add_commit(tmp_path: Path, repository: str, commit: str) -> None:
    """Let `write_list` know the commit of one more repository."""
    path = tmp_path / "commits.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {repository: commit}))


def write_list(tmp_path: Path, *changes: dict[str, str]) -> Path:
    """A list of three collections; `changes` update its rows, in order."""
    commits = json.loads((tmp_path / "commits.json").read_text())
    rows = [
        {
            "collection": "photos",
            "repository": "owner/photos",
            "pattern": r"^photos/.*\.jpg$",
            "label": "Real",
            "generator_or_source": "a camera",
            "role": "train",
        },
        {
            "collection": "fakes",
            "repository": "owner/fakes",
            "pattern": r"^img/.*\.PNG$",
            "label": "Fake",
            "generator_or_source": "GAN",
            "role": "train",
            "exclude": "input",
            "generators": "/a1 = Diffusion",
        },
        {
            "collection": "sheets",
            "repository": "owner/fakes",
            "pattern": "^sheets/",
            "label": "Fake",
            "generator_or_source": "SD",
            "role": "validation",
            "tiles": "2x2",
        },
    ]
    for row, change in zip_longest(rows, changes, fillvalue={}):
        row |= {"commit": commits[row["repository"]], "licence": "CC0"} | change
    return write_rows(tmp_path / "list.csv", rows)


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """A CSV file of these rows; the first has all columns, or lacks only optional ones."""
    columns = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def options(mirror: Path | None, **changes) -> CollectOptions:
    values = {"git_dirs": mirror, "server": "", "min_side": 16, "workers": 1}
    return CollectOptions(**values | changes)


def collect_all(tmp_path, mirror, *changes, names=(), **option_changes):
    collections = read_collections(write_list(tmp_path, *changes), names=names)
    return collect(
        collections, output_dir=tmp_path / "raw", options=options(mirror, **option_changes)
    )


def outcomes(folder: Path) -> dict[str, str]:
    with (folder / "report.csv").open(newline="") as file:
        return {row["path"]: row["outcome"] + row["detail"] for row in csv.DictReader(file)}
