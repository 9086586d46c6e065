"""Make the authority that signs the tests' pictures."""

from __future__ import annotations

import pytest

from tests.provenance.signing import make_authority


@pytest.fixture(scope="session")
def authority():
    return make_authority()
