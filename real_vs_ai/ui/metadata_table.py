"""Show the table of a file's metadata, and where the picture was taken on request."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from real_vs_ai.provenance import Entry, Metadata, read_metadata, read_place

_LESS = "It may show what the picture was before an edit."


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
    with st.expander(f"All metadata of the file ({len(metadata.entries)})"):
        if metadata.thumbnail:
            st.image(metadata.thumbnail, caption=f"The small picture in the file. {_LESS}")
        if metadata.entries:
            _show_table(metadata.entries)
        if metadata.tells_place and st.toggle("Show where it was taken", key=f"place {key}"):
            _show_table(read_place(data))


def _show_table(entries: Sequence[Entry]) -> None:
    rows = [{"Kind": one.group, "Name": one.name, "Value": one.value} for one in entries]
    # A table of data shows texts as they are: no Markdown.
    st.dataframe(rows, hide_index=True, placeholder="–")
