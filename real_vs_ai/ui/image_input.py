"""Take images from uploads, the clipboard, the camera or the app's examples, and hold them.

What is pasted anywhere on the page is put into the uploader (`page.js`).

Streamlit forgets an uploader's files when a page is drawn without it, and its server keeps the
bytes of every upload until the session ends. Here a session keeps the files it showed last until
they are cleared, and the server keeps no others. A zip counts as a folder, and is read in memory.
"""

from __future__ import annotations

import functools
import io
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import streamlit as st
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

from real_vs_ai.core.errors import one_line
from real_vs_ai.core.images import ImageError, describe_formats
from real_vs_ai.core.messages import Message
from real_vs_ai.serving.image_sources import list_zip_images, read_zip_entry
from real_vs_ai.ui.language import tell
from real_vs_ai.ui.wording import visible

MAX_IMAGES = 500
# The same as `server.maxUploadSize` in .streamlit/config.toml, which bounds uploads only.
MAX_BYTES = 50 * 2**20
# The files that one visitor holds at a time.
MAX_TOTAL_BYTES = 2**30
# The uploads of all visitors together.
MAX_SERVER_BYTES = 2 * 2**30
_UPLOAD, _CAMERA, _EXAMPLES = "upload", "camera", "examples"
_SOURCES = (_UPLOAD, _CAMERA, _EXAMPLES)
# A browser that pastes a picture makes a new file of its pixels: what the file said is lost.
PASTED_NAME = "pasted picture"
_HELD_KEY, _SEEN_KEY = "held_files", "seen_file_ids"
_ZIPS_KEY, _ZIP = "zips", ".zip"
# Python's reader makes an object of each entry of the directory before anything can be counted.
_MOST_ENTRIES = 20_000
_ENTRY_SIGNATURE = b"PK\x01\x02"
# How many bytes each session keeps of each file, whether or not the server keeps it.
_HELD_SIZES: dict[str, dict[str, int]] = {}
_PAYLOAD_TOO_LARGE, _INSUFFICIENT_STORAGE = 413, 507


@dataclass(frozen=True)
class LocalFile:
    """A file that no widget holds: one of a zip, or one of the app's own pictures.

    Attributes:
        getvalue: Raises ImageError where a file of a zip cannot be read.
        label: The true class of one of the app's own pictures.
        caption: A sentence on one of the app's own pictures.
    """

    name: str
    file_id: str
    getvalue: Callable[[], bytes]
    label: str = ""
    caption: str = ""


# A file held in memory.
ImageFile: TypeAlias = UploadedFile | LocalFile


def _example(name: str, label: str) -> LocalFile:
    path = Path(__file__).with_name("examples") / name
    caption = Message(f"example.{path.stem.partition('-')[0]}")
    return LocalFile(name, f"example-{name}", path.read_bytes, label, caption)


EXAMPLE_FILES = (
    _example("labelled-cat.jpg", "Fake"),
    _example("generated-coffee.jpg", "Fake"),
    _example("photograph-astronaut.jpg", "Real"),
    _example("unsure-coffee.jpg", "Real"),
)


def was_pasted(name: str) -> bool:
    """Whether a browser made the file from a pasted picture; `page.js` names such files."""
    return name.startswith(PASTED_NAME)


def example_of(file: ImageFile) -> LocalFile | None:
    """The file, when it is one of the app's examples."""
    return file if isinstance(file, LocalFile) and file.caption else None


def ask_for_images() -> list[ImageFile]:
    """Show the inputs; returns what the user gave, at most MAX_IMAGES."""
    place = st.container(key="inputs")
    source = st.segmented_control(
        tell("input.source"),
        _SOURCES,
        default=_UPLOAD,
        required=True,
        key="image_source",
        format_func=lambda one: tell(f"input.{one}"),
        label_visibility="collapsed",
        persist_state="session",
    )
    if source == _EXAMPLES:
        place.caption(tell("example.all"))
        return list(EXAMPLE_FILES)
    with place:
        files = _unpacked({_UPLOAD: _upload, _CAMERA: _photograph}[source]())
    if len(files) > MAX_IMAGES:
        st.warning(
            tell("input.too_many", most=MAX_IMAGES, found=len(files)), icon=":material/warning:"
        )
    return files[:MAX_IMAGES]


def _unpacked(files: Sequence[ImageFile]) -> list[ImageFile]:
    """The files, with the pictures of each zip in its place; a zip is opened once in a session."""
    known: dict[str, list[ImageFile]] = st.session_state.get(_ZIPS_KEY, {})
    zips = {
        file.file_id: known.get(file.file_id)
        or open_zip(visible(file.name), file.file_id, file.getvalue())
        for file in files
        if file.name.lower().endswith(_ZIP)
    }
    st.session_state[_ZIPS_KEY] = zips
    return [one for file in files for one in zips.get(file.file_id, [file])]


def open_zip(name: str, file_id: str, data: bytes) -> list[LocalFile]:
    """The pictures in a zip, sorted by name; of one that cannot be read, a file that says why."""
    try:
        archive = _open(data)
        images = list(list_zip_images(archive))
    except ImageError as error:
        return [_refused(name, file_id, str(error))]
    if not images:
        return [_refused(name, file_id, Message("input.zip_empty"))]
    if sum(archive.infolist()[index].file_size for _, index in images) > MAX_TOTAL_BYTES:
        return [
            _refused(name, file_id, Message("input.zip_large", megabytes=MAX_TOTAL_BYTES >> 20))
        ]
    return [
        LocalFile(
            f"{name}/{inner}",
            f"{file_id}/{index}",
            functools.partial(read_zip_entry, archive, index, max_bytes=MAX_BYTES),
        )
        for inner, index in images
    ]


def _open(data: bytes) -> zipfile.ZipFile:
    if data.count(_ENTRY_SIGNATURE) > _MOST_ENTRIES:
        raise ImageError(Message("input.zip_many", most=_MOST_ENTRIES))
    try:
        return zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ImageError(Message("input.zip_unreadable", reason=one_line(error))) from error


def _refused(name: str, file_id: str, reason: str) -> LocalFile:
    def refuse() -> bytes:
        raise ImageError(reason)

    return LocalFile(name, file_id, refuse)


def clear_images() -> None:
    """Empty the inputs: a new key is a new, empty widget."""
    forget_files()
    st.session_state["input_number"] = _number() + 1


def _number() -> int:
    return st.session_state.get("input_number", 0)


def _upload() -> list[ImageFile]:
    key = f"uploads_{_number()}"
    kept = kept_files(_UPLOAD, key=key)
    # No filter of types: the page says why a file is no picture, a filter only on hovering.
    files = st.file_uploader(
        tell("input.label"), accept_multiple_files=True, key=key, label_visibility="collapsed"
    )
    if not kept and not files:
        limits = {"formats": describe_formats(), "megabytes": MAX_BYTES >> 20, "most": MAX_IMAGES}
        st.caption(tell("input.limits", **limits))
    return _joined(_UPLOAD, kept, files)


def _photograph() -> list[ImageFile]:
    key = f"camera_{_number()}"
    kept = kept_files(_CAMERA, key=key)
    picture = st.camera_input(tell("input.take"), key=key)
    return _joined(_CAMERA, kept, [picture] if picture else [])


def _joined(source: str, kept: Sequence[ImageFile], live: Sequence[ImageFile]) -> list[ImageFile]:
    """The files kept from earlier, then those that the widget holds."""
    live_ids = {file.file_id for file in live}
    earlier = [file for file in kept if file.file_id not in live_ids]
    if earlier:
        st.caption(tell("input.earlier", count=len(earlier)))
    files = [*earlier, *live]
    remember_files(source, files, live=live)
    return files


def kept_files(source: str, *, key: str) -> list[ImageFile]:
    """Files of a source that its widget has forgotten; call it before the widget is drawn.

    Args:
        source: Where they come from: "upload", …
        key: The widget's key; where the session knows it, the widget was there a moment ago and
            still holds its files itself.
    """
    shown = st.session_state.get(_HELD_KEY, {}).get(source, [])
    if key not in st.session_state:
        return list(shown)
    return [file for file in shown if file.file_id not in st.session_state.get(_SEEN_KEY, ())]


def remember_files(
    source: str, files: Sequence[ImageFile], *, live: Sequence[ImageFile] = ()
) -> None:
    """Keep these files for when their widget is gone.

    Args:
        source: As for `kept_files`.
        files: All files of the source.
        live: Those that a widget holds now. What widgets held before leaves the server's memory.
    """
    held = st.session_state.setdefault(_HELD_KEY, {})
    held[source] = list(files)
    context = get_script_run_ctx()
    _HELD_SIZES[context.session_id] = {
        file.file_id: file.size for files in held.values() for file in files
    }
    seen: set[str] = st.session_state.get(_SEEN_KEY, set())
    live_ids = {file.file_id for file in live}
    # Other uploads may be on their way, so only what was seen here is removed.
    for file_id in seen - live_ids:
        context.uploaded_file_mgr.remove_file(context.session_id, file_id)
    st.session_state[_SEEN_KEY] = live_ids


def forget_files() -> None:
    """Forget all kept files."""
    st.session_state.pop(_HELD_KEY, None)
    _HELD_SIZES.pop(get_script_run_ctx().session_id, None)


@functools.cache
def bound_uploads() -> None:
    """Let the server keep uploads in memory, within the limits for each visitor and in total.

    Streamlit itself puts large files on disk, and bounds a single file only: a program that uploads
    without end would fill the machine's memory.

    The three changes to classes must stay. `st.file_uploader` bounds a file (`max_upload_size`) and
    no sum, `streamlit run` takes no upload manager of one's own, and nothing but this attribute
    keeps Starlette from writing a form of more than 1 MB to disk.
    """
    # A request holds some kilobytes besides the file.
    MultiPartParser.spool_max_size = MAX_BYTES + 2**20
    add_file = MemoryUploadedFileManager.add_file

    def add_if_there_is_room(
        manager: MemoryUploadedFileManager, session_id: str, file: UploadedFileRec
    ) -> None:
        sizes = _bytes_by_session(manager)
        if sizes.get(session_id, 0) + len(file.data) > MAX_TOTAL_BYTES:
            raise HTTPException(_PAYLOAD_TOO_LARGE, "Too many bytes at a time; clear some images.")
        if sum(sizes.values()) + len(file.data) > MAX_SERVER_BYTES:
            raise HTTPException(_INSUFFICIENT_STORAGE, "The server is full; try again later.")
        add_file(manager, session_id, file)

    def forget_session(manager: MemoryUploadedFileManager, session_id: str) -> None:
        _HELD_SIZES.pop(session_id, None)
        remove_session_files(manager, session_id)

    remove_session_files = MemoryUploadedFileManager.remove_session_files
    MemoryUploadedFileManager.add_file = add_if_there_is_room
    MemoryUploadedFileManager.remove_session_files = forget_session


def _bytes_by_session(manager: MemoryUploadedFileManager) -> dict[str, int]:
    """What each visitor holds: the server's files and those kept here, which may be the same."""
    sizes = {session: dict(held) for session, held in list(_HELD_SIZES.items())}
    for session, files in list(manager.file_storage.items()):
        stored = {file_id: len(record.data) for file_id, record in list(files.items())}
        sizes.setdefault(session, {}).update(stored)
    return {session: sum(held.values()) for session, held in sizes.items()}
