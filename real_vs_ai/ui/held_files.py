"""Keep a session's image files while its user is on another page, then release them.

    kept = kept_files("Upload", key="uploads_0")        # before the widget is drawn
    remember_files("Upload", [*kept, *files], live=files)

Streamlit forgets an uploader's files when a page is drawn without it, and its server keeps the
bytes of every upload until the session ends. Here both are the other way round: a session keeps
the files it showed last, until they are cleared, and the server no others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import streamlit as st
from starlette.exceptions import HTTPException
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from real_vs_ai.ui.checking import MAX_SERVER_BYTES, MAX_TOTAL_BYTES

_HELD_KEY, _SEEN_KEY = "held_files", "seen_file_ids"
# By session and file: bytes that a session keeps, whether or not the server does.
_HELD_SIZES: dict[str, dict[str, int]] = {}
_PAYLOAD_TOO_LARGE, _INSUFFICIENT_STORAGE = 413, 507


class ImageFile(Protocol):
    """A file held in memory, as Streamlit's uploader gives it."""

    name: str
    file_id: str
    size: int

    def getvalue(self) -> bytes:
        """The file's bytes."""


def kept_files(source: str, *, key: str | None) -> list[ImageFile]:
    """Files of a source that its widget has forgotten; call it before the widget is drawn.

    Args:
        source: Where they come from: "Upload", …
        key: The widget's key; where the session knows it, the widget was there a moment ago and
            still holds its files itself. None for a widget that hands out its files once.
    """
    held = st.session_state.setdefault(_HELD_KEY, {}).setdefault(source, {"shown": [], "kept": []})
    if key is None or key not in st.session_state:
        held["kept"] = held["shown"]
    return list(held["kept"])


def remember_files(
    source: str, files: Sequence[ImageFile], *, live: Sequence[ImageFile] = ()
) -> None:
    """Keep these files for when their widget is gone.

    Args:
        source: As for `kept_files`.
        files: All files of the source.
        live: Those that a widget holds now. What widgets held before leaves the server's memory.
    """
    held = st.session_state.setdefault(_HELD_KEY, {}).setdefault(source, {"shown": [], "kept": []})
    held["shown"] = list(files)
    context = get_script_run_ctx()
    _HELD_SIZES[context.session_id] = _sizes_held()
    seen: set[str] = st.session_state.get(_SEEN_KEY, set())
    live_ids = {file.file_id for file in live}
    # Only what was seen here: another upload may be on its way at this moment.
    for file_id in seen - live_ids:
        context.uploaded_file_mgr.remove_file(context.session_id, file_id)
    st.session_state[_SEEN_KEY] = live_ids


def forget_files() -> None:
    """Let go of all kept files."""
    st.session_state.pop(_HELD_KEY, None)
    _HELD_SIZES.pop(get_script_run_ctx().session_id, None)


def held_bytes() -> int:
    """Of all the files that this session keeps, from whichever source."""
    return sum(_sizes_held().values())


def _sizes_held() -> dict[str, int]:
    sources = st.session_state.get(_HELD_KEY, {}).values()
    files = [file for source in sources for part in source.values() for file in part]
    return {file.file_id: file.size for file in files}


@functools.cache
def bound_uploads() -> None:
    """Let the server refuse uploads beyond what a visitor, and all together, may hold.

    Streamlit itself bounds a single file only, so a program that uploads without end would fill
    the machine's memory.
    """
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
