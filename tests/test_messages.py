"""Every sentence is an entry of one table, and each language's table has them all."""

from __future__ import annotations

import ast
import pickle
import re
import string
from pathlib import Path

import pytest

from real_vs_ai.core.messages import (
    ENGLISH,
    PLURALS,
    Entry,
    Message,
    choose_language,
    in_language,
    languages,
    read_table,
)

PACKAGE = Path(__file__).resolve().parents[1] / "real_vs_ai"
MARKER = "\0"
# What tells a visitor why a picture has no answer.
RAISED = {"ImageError", "ImageTooLargeError", "Reason"}
READ = ("images.py", "image_sources.py", "file_structure.py", "check.py")


def fields_of(entry: Entry) -> set[str]:
    """The fields of a sentence; of one that counts, those of its form for many."""
    text = entry if isinstance(entry, str) else entry["other"]
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def text_of(node: ast.AST) -> str | None:
    """A text in the code, with MARKER where a part is computed; None for any other node."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else MARKER for p in node.values)
    return None


def nodes_of_package() -> list[ast.AST]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py"))
    return [node for tree in trees for node in ast.walk(tree)]


def keys_of_calls() -> set[str]:
    """The keys with which the package makes its messages."""
    calls = (node for node in nodes_of_package() if isinstance(node, ast.Call) and node.args)
    named = (node for node in calls if getattr(node.func, "id", "") in {"Message", "tell"})
    return set(filter(None, (text_of(node.args[0]) for node in named)))


@pytest.mark.parametrize("language", languages())
def test_no_language_lacks_a_sentence_a_form_or_a_field(language):
    english, table = read_table(ENGLISH), read_table(language)
    assert set(table) == set(english)
    for key, entry in table.items():
        assert isinstance(entry, str) == isinstance(english[key], str), key
        assert fields_of(entry) == fields_of(english[key]), key
        if not isinstance(entry, str):
            assert set(entry) == PLURALS and fields_of(entry["one"]) <= fields_of(entry), key


def test_every_sentence_is_used_and_every_key_in_the_code_has_one():
    keys = set(filter(None, map(text_of, nodes_of_package())))
    table = set(read_table(ENGLISH))
    computed = [
        re.compile(re.escape(key).replace(re.escape(MARKER), r"\w*"))
        for key in keys
        if MARKER in key and "." in key
    ]
    unused = {k for k in table - keys if not any(pattern.fullmatch(k) for pattern in computed)}
    assert unused == set()
    assert {key for key in keys_of_calls() if MARKER not in key} - table == set()


def test_reasons_that_a_visitor_reads_come_from_the_table():
    places = [path for name in READ for path in PACKAGE.rglob(name)]
    places += (PACKAGE / "ui").glob("*.py")
    literal = []
    for path in places:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            raised = isinstance(node, ast.Call) and getattr(node.func, "id", "") in RAISED
            texts = node.args[-1:] if raised else []
            # Its functions return why they refuse a file.
            if isinstance(node, ast.Return) and path.name == "file_structure.py":
                texts = [node.value]
            literal += [
                f"{path.name}: {text}"
                for text in map(text_of, filter(None, texts))
                if text and len(text.split()) > 2
            ]
    assert literal == []


def test_message_is_said_in_another_language_with_its_fields(monkeypatch):
    foreign = {"reason.unstable": "Nach {changes}.", "change.crop": "Zuschnitt {percent}"}
    monkeypatch.setattr(
        "real_vs_ai.core.messages.read_table",
        lambda language: foreign if language == "xx" else read_table(language),
    )
    change = Message("change.crop", percent=75)
    told = Message("reason.unstable", changes=(change, change))
    assert (
        told == "The model is not sure: its answer changes after " + ", ".join([change] * 2) + "."
    )
    assert in_language(told, "xx") == "Nach Zuschnitt 75, Zuschnitt 75."
    # What the table lacks is said in English.
    assert in_language(Message("page.why"), "xx") == "Why, and what now?"
    assert in_language("plain", "xx") == "plain"


def test_message_outlasts_pickling_and_counts():
    told = pickle.loads(pickle.dumps(Message("input.earlier", count=1)))
    assert told == "Showing 1 picture you uploaded earlier." and told.key == "input.earlier"
    assert "3 pictures" in Message("input.earlier", count=3)


@pytest.mark.parametrize(
    ("wanted", "language"), [(None, "en"), ("", "en"), ("en-GB", "en"), ("xx,en;q=0.8", "en")]
)
def test_language_is_the_first_of_the_browsers_that_there_is(wanted, language):
    assert choose_language(wanted) == language


def test_translations_are_no_copies_of_the_english_sentences():
    for language in set(languages()) - {ENGLISH}:
        table = read_table(language)
        same = {k for k, entry in read_table(ENGLISH).items() if entry == table[k]}
        assert {key for key in same if len(str(table[key]).split()) > 5} == set(), language


@pytest.mark.parametrize(
    ("language", "number", "score"),
    [
        ("en", "1,500", "0.250"),
        ("de", "1.500", "0,250"),
        ("es", "1\N{NO-BREAK SPACE}500", "0,250"),
        ("fr", "1\N{NO-BREAK SPACE}500", "0,250"),
    ],
)
def test_numbers_have_the_marks_of_the_language(language, number, score):
    many = in_language(Message("input.zip_many", most=1500), language)
    assert number in many
    told = in_language(Message("number.class", name="a.b", value=0.25), language)
    assert told == f"a.b {score}"


def test_sentence_within_a_sentence_is_said_in_the_same_language():
    claim = Message("claim.with_tool", claim=Message("claim.screen"), tool="X")
    told = Message("origin.says", claim=claim)
    assert in_language(told, "de") == "Die Datei gibt an: Aufnahme eines Bildschirms (X)."
