"""Scores tables are whole or resumable, in four formats."""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import multiprocessing
import os
import resource

import pyarrow.parquet as pq
import pytest

from real_vs_ai import __version__
from real_vs_ai.core.errors import InputError
from real_vs_ai.serving.score_file import FORMATS, ScoreFile, check_output

COLUMNS = ("path", "label", "probability_fake", "width", "error")


def row(index: int, **changes):
    values = {"path": f"é {index}.png", "label": "Fake", "probability_fake": 0.25, "width": 32}
    return {**values, "error": "", **changes}


def score_file(path, *, model="one", resume=False, overwrite=False):
    return ScoreFile(path, columns=COLUMNS, model=model, resume=resume, overwrite=overwrite)


def write(path, rows, **options):
    with score_file(path, **options) as file:
        file.append(r for r in rows if not file.has(r["path"]))


def interrupt_after(path, rows, *, torn=b""):
    """What a process leaves that is killed after it wrote these rows and `torn` of the next."""
    with pytest.raises(KeyboardInterrupt), score_file(path, overwrite=True) as file:
        file.append(rows)
        raise KeyboardInterrupt
    with file.partial.open("ab") as partial:
        partial.write(torn)
    return file.partial


def rows_of(path) -> list:
    """A finished table's rows; of a CSV all values are texts."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)["images"]
    return [json.loads(line) for line in text.splitlines()]


def expected(path, rows) -> list:
    if path.suffix != ".csv":
        return rows
    return [{name: "" if v is None else str(v) for name, v in row.items()} for row in rows]


ROWS = [row(0), row(1, label="", probability_fake=None, width=None, error='bad, "very"\n'), row(2)]


@pytest.fixture(params=FORMATS)
def output(request, tmp_path):
    return tmp_path / "new" / f"scores.{request.param}"


def test_every_format_gives_back_the_rows_that_were_written(output):
    write(output, ROWS)
    assert rows_of(output) == expected(output, ROWS)
    assert [p.name for p in output.parent.iterdir()] == [output.name]


def test_every_format_can_be_empty(output):
    write(output, [])
    assert rows_of(output) == []


def test_killed_run_leaves_no_table_and_resumes(output):
    partial = interrupt_after(output, ROWS[:2], torn=b'{"path": "half')
    assert not output.exists()
    assert partial.exists()
    write(output, ROWS, resume=True)
    assert rows_of(output) == expected(output, ROWS)
    assert not partial.exists()


def test_a_run_killed_in_its_first_line_starts_again(tmp_path):
    output = tmp_path / "scores.csv"
    (tmp_path / "scores.csv.partial").write_bytes(b'{"colu')
    write(output, ROWS, resume=True)
    assert rows_of(output) == expected(output, ROWS)


def test_resumed_rows_say_what_was_there(tmp_path):
    output = tmp_path / "scores.csv"
    interrupt_after(output, ROWS[:2])
    with score_file(output, resume=True) as file:
        assert file.resumed_rows == 2
        assert file.has(ROWS[0]["path"])
        assert not file.has(ROWS[2]["path"])


def test_rows_of_another_model_are_not_mixed_in(tmp_path):
    output = tmp_path / "scores.csv"
    interrupt_after(output, ROWS[:1])
    with pytest.raises(ValueError, match="another model"):
        write(output, ROWS, model="two", resume=True)


@pytest.mark.parametrize(
    ("there", "resume", "overwrite", "refusal"),
    [
        ("finished", False, False, "--overwrite"),
        ("finished", True, False, "--overwrite"),
        ("finished", False, True, None),
        ("unfinished", False, False, "did not end"),
        ("unfinished", True, False, None),
        ("finished and unfinished", True, False, "--overwrite"),
        ("finished and unfinished", True, True, None),
    ],
)
def test_table_that_is_there_is_touched_with_leave_only(
    tmp_path, there, resume, overwrite, refusal
):
    output = tmp_path / "scores.csv"
    if there.startswith("finished"):
        write(output, ROWS)
    if there.endswith("unfinished"):
        interrupt_after(output, ROWS[:1])
    with pytest.raises(FileExistsError, match=refusal) if refusal else contextlib.nullcontext():
        check_output(output, resume=resume, overwrite=overwrite)


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.parquet, found 'scores.xlsx'"):
        check_output(tmp_path / "scores.xlsx", resume=False, overwrite=False)


def test_csv_and_json_are_what_other_programs_expect(tmp_path):
    write(tmp_path / "scores.csv", [row(0)])
    text = (tmp_path / "scores.csv").read_text(encoding="utf-8")
    assert text == "path,label,probability_fake,width,error\né 0.png,Fake,0.25,32,\n"
    write(tmp_path / "scores.json", ROWS)
    document = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert document == {"version": __version__, "models": [], "images": ROWS}


def test_a_second_run_into_the_same_table_stops_and_nothing_is_lost(tmp_path):
    output = tmp_path / "scores.csv"
    with score_file(output) as first:
        first.append(ROWS[:1])
        for leave in ({}, {"resume": True}, {"overwrite": True}):
            with (
                pytest.raises(FileExistsError, match="Another run writes"),
                score_file(output, **leave),
            ):
                pass
            with pytest.raises(FileExistsError, match="Another run writes"):
                check_output(output, **{"resume": False, "overwrite": False} | leave)
        first.append(ROWS[1:])
    assert rows_of(output) == expected(output, ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_a_table_that_another_run_has_finished_meanwhile_is_kept(tmp_path):
    output = tmp_path / "scores.csv"
    check_output(output, resume=False, overwrite=False)
    write(output, ROWS)
    with pytest.raises(FileExistsError, match="--overwrite"):
        write(output, ROWS[:1])
    assert rows_of(output) == expected(output, ROWS)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def _write_until(limit: int, path, messages) -> None:
    # The system then refuses every write beyond it, as a full disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        with score_file(path) as file:
            for index in range(10_000):
                file.append([row(index)])
    except InputError as error:
        messages.put(str(error))


@pytest.mark.parametrize("limit", [20_000, 900_000], ids=["rows", "table"])
def test_a_full_disk_says_what_is_kept_and_how_to_go_on(tmp_path, limit):
    output = tmp_path / "scores.json"
    context = multiprocessing.get_context("fork")
    messages = context.Queue()
    process = context.Process(target=_write_until, args=(limit, output, messages))
    process.start()
    message = messages.get(timeout=60)
    process.join()
    assert message.startswith(os.strerror(errno.EFBIG))
    assert "scores.json.partial keeps what was scored" in message and "--resume" in message
    assert [path.name for path in tmp_path.iterdir()] == ["scores.json.partial"]
    write(output, map(row, range(10_000)), resume=True)
    assert [r["path"] for r in rows_of(output)] == [row(i)["path"] for i in range(10_000)]
