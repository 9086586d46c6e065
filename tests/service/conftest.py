"""Build the service around the trivial model, and call it without a network."""

from __future__ import annotations

import argparse

import pytest
from starlette.testclient import TestClient

from real_vs_ai.service.application import create_application
from real_vs_ai.service.judging import LocalJudge
from real_vs_ai.service.limits import Limits, add_limits, limits_from
from tests.serving.conftest import cache_folder, model_path  # noqa: F401 (fixtures)


def make_limits(*options: str) -> Limits:
    """The limits that these options of ApiServer.py set."""
    parser = argparse.ArgumentParser()
    add_limits(parser)
    return limits_from(parser.parse_args(options))


@pytest.fixture(scope="session")
def judge(model_path):  # noqa: F811
    judge = LocalJudge(model_path, limits=make_limits())
    judge.wait_until_open()
    yield judge
    judge.close()


@pytest.fixture
def client(judge):
    with TestClient(create_application(judge, limits=make_limits(), keys=None)) as client:
        yield client
