"""The buttons that hand out what was found."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import UTC, datetime

import streamlit as st

from real_vs_ai.ui.judging import JudgedUpload
from real_vs_ai.ui.reports import ReportModel, csv_report, html_report, json_report


def show_downloads(results: Sequence[JudgedUpload], *, model: ReportModel) -> None:
    """Three buttons; each file is made when its button is clicked."""
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    stem = f"checked-images-{datetime.now(UTC):%Y%m%d-%H%M}"
    files = {
        "Report with pictures (HTML)": (
            functools.partial(html_report, results, model=model, created=created),
            "html",
            "text/html",
            ":material/description:",
        ),
        "Table (CSV)": (
            functools.partial(csv_report, results, metadata=model.metadata),
            "csv",
            "text/csv",
            ":material/table:",
        ),
        "Data (JSON)": (
            functools.partial(json_report, results, model=model, created=created),
            "json",
            "application/json",
            ":material/data_object:",
        ),
    }
    for label, (make, suffix, mime, icon) in files.items():
        st.download_button(
            label, make, file_name=f"{stem}.{suffix}", mime=mime, icon=icon, on_click="ignore"
        )
