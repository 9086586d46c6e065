"""A manifest gives back what was written, whatever the names in it."""

from __future__ import annotations

from real_vs_ai.preparation.manifest import ManifestRow, read_manifest, write_manifest

NAMES = ("a\rb.png", "c\nd.png", "e\r\nf.png", 'g"h,i.png', "j\udcff.png", "plain.png")


def test_names_with_line_breaks_and_quotes_come_back_unchanged(tmp_path):
    rows = [
        ManifestRow(name, "0" * 64, "Fake", "train", "s\rt", 1, 2, "PNG", f"raw/{name}")
        for name in sorted(NAMES)
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    assert read_manifest(tmp_path / "manifest.csv") == rows


def test_ordinary_names_are_written_without_quotes(tmp_path):
    row = ManifestRow("plain.png", "0" * 64, "Fake", "train", "s", 1, 2, "PNG", "raw/plain.png")
    write_manifest(tmp_path / "manifest.csv", [row])
    assert '"' not in (tmp_path / "manifest.csv").read_text()
