"""Open a run's folder, and record what it was made from and with, in `config.json`."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from real_vs_ai import __version__
from real_vs_ai.config import MANIFEST_NAME
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.errors import InputError
from real_vs_ai.files import read_json, write_json
from real_vs_ai.runs import RunFolder
from real_vs_ai.training.devices import Hosts
from real_vs_ai.training.options import TrainingOptions

_PACKAGES = ("keras", "tensorflow", "jax", "numpy", "pillow", "scikit-learn", "h5py")


def open_run(
    options: TrainingOptions, *, splits: Mapping[str, DecodedImages], device: str, hosts: Hosts
) -> RunFolder:
    """Make the run's folder, or check that the run to resume was made from the same data."""
    if options.resume:
        run = RunFolder(options.resume)
        stored = read_json(run.config)
        if describe_data(options.data, splits)["fingerprint"] != stored["data"]["fingerprint"]:
            raise InputError(
                f"The images in {options.data} have changed since {run.path} was started. "
                "Start a new run, or restore the images."
            )
        changed = note_changed_options(stored, options)
        if changed and hosts.is_first:
            write_json(run.config, changed)
        return run
    name = options.run_name or f"{datetime.now():%Y-%m-%d-%H%M%S}-{options.backbone}"
    if not hosts.is_first:
        # Answers when the first process has made the folder.
        return RunFolder(options.models_dir / hosts.share(name))
    run = RunFolder(options.models_dir / name)
    run.path.mkdir(parents=True, exist_ok=True)
    if _has_begun(run):
        raise FileExistsError(
            f"{run.path} already exists. Resume it with --resume {run.path}, "
            "or choose another --run-name."
        )
    run.checkpoints.mkdir(exist_ok=True)
    write_json(run.config, describe_run(options, splits=splits, device=device))
    hosts.share(name)
    return run


def _has_begun(run: RunFolder) -> bool:
    """Whether a folder holds anything; what a killed process left unfinished has hidden names."""
    return any(path.is_file() and path.name[0] != "." for path in run.path.rglob("*"))


def describe_run(
    options: TrainingOptions, *, splits: Mapping[str, DecodedImages], device: str
) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as `config.json` holds it."""
    return {
        "options": options.stored(),
        "seed": options.seed,
        "command": list(options.command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "versions": package_versions(),
        "platform": platform.platform(),
        "git": git_state(Path(__file__).resolve().parent),
        "data": describe_data(options.data, splits),
    }


def note_changed_options(stored: dict[str, Any], options: TrainingOptions) -> dict[str, Any] | None:
    """What `config.json` must hold when other options resume a run; None with the same.

    Raises:
        InputError: The batch size differs: the steps of an epoch are counted by it.
    """
    now, before = json.loads(json.dumps(options.stored())), stored["options"]
    changed = {name: [before.get(name), now[name]] for name in now if now[name] != before.get(name)}
    if not changed:
        return None
    if "batch_size" in changed:
        raise InputError(
            f"Expected --batch-size {before.get('batch_size')} as the run began with, received "
            f"{now['batch_size']}. Leave it out, or start a new run."
        )
    entry = {
        "command": list(options.command),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed": changed,
    }
    return {**stored, "options": now, "resumed": [*stored.get("resumed", []), entry]}


def describe_data(folder: Path, splits: Mapping[str, DecodedImages]) -> dict[str, Any]:
    """Fingerprint, counts, sources and unreadable files of the data."""
    return {
        "folder": folder.as_posix(),
        "fingerprint": data_fingerprint(folder, splits),
        "counts": {split: images.images.counts for split, images in splits.items()},
        "sources": {split: sorted(set(images.images.sources)) for split, images in splits.items()},
        "unreadable": {
            split: [list(failure) for failure in images.failures]
            for split, images in splits.items()
            if images.failures
        },
    }


def data_fingerprint(folder: Path, splits: Mapping[str, DecodedImages]) -> str:
    """SHA-256 of the manifest, and of every image's name, class and pixels as they were decoded.

    The same images give the same fingerprint wherever and whenever they were unpacked.
    """
    digest = hashlib.sha256()
    manifest = folder / MANIFEST_NAME
    if manifest.is_file():
        digest.update(manifest.read_bytes())
    for split, images in splits.items():
        digest.update(f"{split} {images.images.class_names}\n".encode())
        for path, label in zip(images.images.paths, images.labels, strict=True):
            digest.update(f"{path}\0{label}\n".encode("utf-8", "surrogateescape"))
        for pixels in images.pixels:
            digest.update(pixels.tobytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python, of this project and of what it calculates with."""
    versions = {"real_vs_ai": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of the code, and whether it was changed since; None outside a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": changed}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return done.stdout.strip()
