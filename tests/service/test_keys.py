"""Keys are shown once, stored as hashes, and asked for wherever others can reach the service."""

from __future__ import annotations

import stat

import pytest

from real_vs_ai.errors import InputError
from real_vs_ai.service.keys import add_key, is_local, read_keys, required_keys


def test_file_holds_hashes_that_only_the_owner_reads(tmp_path):
    path = tmp_path / "keys.txt"
    first, second = add_key(path, name="a"), add_key(path, name="b")
    assert first not in path.read_text() and second not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keys = read_keys(path)
    assert keys.allows(first) and keys.allows(second) and not keys.allows("")
    assert not keys.allows("\udc80")


@pytest.mark.parametrize("name", ["", "two words", "line\nbreak", "a"])
def test_name_that_is_taken_or_unfit_is_refused(tmp_path, name):
    path = tmp_path / "keys.txt"
    add_key(path, name="a")
    before = path.read_bytes()
    with pytest.raises(InputError):
        add_key(path, name=name)
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "# none yet\n", "a secret\n", "a " + "0" * 64 + " b\n"])
def test_damaged_file_of_keys_is_refused(tmp_path, text):
    path = tmp_path / "keys.txt"
    path.write_text(text)
    with pytest.raises(InputError):
        read_keys(path)


def test_address_beyond_this_machine_needs_keys(tmp_path):
    assert all(map(is_local, ("localhost", "127.0.0.1", "127.8.8.8", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "localhost.example.org", "")))
    assert required_keys(None, address="127.0.0.1") is None
    with pytest.raises(InputError, match="--new-key"):
        required_keys(None, address="0.0.0.0")
    with pytest.raises(FileNotFoundError):
        required_keys(tmp_path / "none.txt", address="localhost")
