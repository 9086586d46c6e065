"""A log file gets lines of progress, also while nothing can be counted."""

from __future__ import annotations

import time

import pytest

from real_vs_ai.core import reporting
from real_vs_ai.core.reporting import keep_informed, plural, progress


@pytest.fixture(autouse=True)
def short_interval(monkeypatch):
    monkeypatch.setattr(reporting, "LINE_SECONDS", 0.05)


def wait_until(condition):
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("one", "several"),
    [
        ("process", "processes"),
        ("batch", "batches"),
        ("box", "boxes"),
        ("image", "images"),
        ("epoch", "epochs"),
        ("repository", "repositories"),
        ("day", "days"),
        ("y", "ys"),
    ],
)
def test_counts_have_their_plural(one, several):
    assert plural(1, one) == f"1 {one}"
    assert plural(2000, one) == f"2,000 {several}"


def test_log_file_gets_lines_with_count_share_and_time_left(capsys):
    with progress(description="Scoring", unit="image", total=200) as bar:
        time.sleep(0.1)
        bar.set_postfix_str("loss 0.5", refresh=False)
        bar.update(100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Scoring: 100 of 200 images (50 %), loss 0.5, ")
    assert lines[0].endswith("left")


def test_items_of_unknown_number_are_counted(capsys):
    for _ in progress((time.sleep(0.1) for _ in range(2)), description="Reading", unit="file"):
        pass
    assert capsys.readouterr().err.startswith("Reading: 1 file, ")


def test_short_work_leaves_no_line(capsys, monkeypatch):
    monkeypatch.setattr(reporting, "LINE_SECONDS", 1e6)
    assert list(progress(range(1000), description="Reading", unit="file")) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_silent_work_reports_that_it_continues(capsys):
    said = ""

    def has_spoken():
        nonlocal said
        said += capsys.readouterr().err
        return said.count("7/8 ModelTraining.py: at work for") >= 2

    with keep_informed("7/8 ModelTraining.py"), keep_informed("inner"):
        wait_until(has_spoken)
    assert "inner" not in said
    capsys.readouterr()
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
