"""Build the service around the trivial model, and call it without a network."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from real_vs_ai.service.access import Limits
from real_vs_ai.service.application import create_application
from real_vs_ai.service.judging import LocalJudge
from tests.serving.conftest import model_path  # noqa: F401 (a fixture)


@pytest.fixture(scope="session")
def judge(model_path):  # noqa: F811
    judge = LocalJudge(model_path, limits=Limits())
    judge.detector()
    yield judge
    judge.close()


@pytest.fixture
def client(judge):
    with TestClient(create_application(judge, limits=Limits(), keys=None)) as client:
        yield client
