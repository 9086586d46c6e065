"""The package's lists of signers are whole, and only whole newer ones take their place."""

from __future__ import annotations

import json
import re

import pytest

from real_vs_ai.provenance import refresh, trust_lists
from tests.provenance.signing import make_authority, write_lists


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The tests' own folder of lists."""
    folder = tmp_path / "lists"
    folder.mkdir()
    root = make_authority().root_pem
    write_lists(folder, signers=root, uses="1.3.6.1.5.5.7.3.4\n")
    monkeypatch.setattr(trust_lists, "FOLDER", folder)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_lists_of_the_package_are_whole_and_name_source_date_and_licence():
    pytest.importorskip("cryptography")
    index = json.loads((trust_lists.FOLDER / "lists.json").read_text(encoding="utf-8"))
    for name, one in index.items():
        assert refresh._read_checked(trust_lists.FOLDER / name, index)
        assert one["source"].startswith("https://") and one["licence"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", one["date"])
    assert {one["list"] for one in index.values()} == {"c2pa", "cai"}


def test_downloaded_lists_take_the_place_of_those_of_the_same_names(folder, tmp_path, capsys):
    newer = tmp_path / "signers.pem"
    newer.write_text("# newer\n" + make_authority().root_pem + make_authority().root_pem)
    assert refresh.main([str(newer)]) == 0
    assert capsys.readouterr().out == "signers.pem: 1 certificates before, 2 certificates now\n"
    assert (folder / "signers.pem").read_bytes() == newer.read_bytes()
    index = json.loads((folder / "lists.json").read_text())
    assert index["signers.pem"]["date"] > index["uses.pem"]["date"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("signers.pem", "<html>not found</html>", "Download it again"),
        ("signers.pem", "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----", "Download"),
        ("signers.pem", None, "No such file"),
        ("signers.pem", "a signer's", "may not issue others"),
        ("signers.pem", "a private key", "other things than certificates"),
        ("uses.pem", "anything", "names no use"),
        ("trusted.pem", "", "Expected a file called signers.pem, uses.pem"),
    ],
)
def test_broken_list_changes_nothing(folder, tmp_path, capsys, name, content, said):
    authority = make_authority()
    key = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"
    texts = {"a signer's": authority.signer_pem, "a private key": authority.root_pem + key}
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    whole = downloads / ("uses.pem" if name == "signers.pem" else "signers.pem")
    whole.write_text(authority.root_pem + "\n1.3.6.1.5.5.7.3.36\n")
    if content is not None:
        (downloads / name).write_text(texts.get(content, content))
    before = contents(folder)
    # The first file is whole, and is not taken either.
    assert refresh.main([str(whole), str(downloads / name)]) == 1
    assert contents(folder) == before
    assert said in capsys.readouterr().err
