"""Show the table of a file's metadata, and where the picture was taken on request."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from real_vs_ai.provenance import Entry, Metadata, read_metadata, read_place
from real_vs_ai.ui.language import tell


def has_metadata(data: bytes) -> bool:
    """Whether there is anything to show."""
    return read_metadata(data) != Metadata()


def show_metadata(data: bytes, *, key: str) -> None:
    """Show all metadata of a file; the place only after a click.

    Args:
        key: Tells this picture from others on the page.
    """
    metadata = read_metadata(data)
    if metadata == Metadata():
        return
    with st.expander(tell("metadata.all", number=len(metadata.entries))):
        if metadata.thumbnail:
            st.image(metadata.thumbnail, caption=tell("metadata.thumbnail"))
        if metadata.entries:
            _show_table(metadata.entries)
        if metadata.tells_place and st.toggle(tell("metadata.place"), key=f"place {key}"):
            _show_table(read_place(data))


def _show_table(entries: Sequence[Entry]) -> None:
    names = {name: tell(f"metadata.{name}") for name in ("kind", "name", "value")}
    rows = [
        {names["kind"]: _kind(one), names["name"]: one.name, names["value"]: one.value}
        for one in entries
    ]
    # A table of data shows texts as they are: no Markdown.
    st.dataframe(rows, hide_index=True, placeholder="–")


def _kind(entry: Entry) -> str:
    # Names of standards are the same in all languages.
    return entry.group if entry.group.isupper() else tell(f"kind.{entry.group}")
