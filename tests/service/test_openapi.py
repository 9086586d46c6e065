"""The running service answers as its OpenAPI document says, whatever is sent (schemathesis)."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from real_vs_ai.service.access import Limits, add_key, read_keys
from real_vs_ai.service.application import create_application
from tests.serving.trivial_model import encode, uniform_image


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.txt"
    return add_key(path, name="tests"), read_keys(path)


@pytest.fixture(scope="module")
def document(judge, key):
    application = create_application(judge, limits=Limits(), keys=key[1])
    return schemathesis.openapi.from_asgi("/openapi.json", application)


schemathesis.openapi.media_type("image/*", st.integers(0, 255).map(uniform_image).map(encode))
OPERATIONS = [
    ("POST", "/v1/images"),
    ("GET", "/v1/models"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("HEAD", "/healthz"),
    ("GET", "/readyz"),
    ("HEAD", "/readyz"),
]


@pytest.mark.parametrize(
    ("method", "address", "mode"),
    [(*operation, GenerationMode.POSITIVE) for operation in OPERATIONS]
    + [("POST", "/v1/images", GenerationMode.NEGATIVE)],
)
def test_answers_are_those_of_the_document(document, key, method, address, mode):
    operation = document[address][method]
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=30, deadline=None, database=None, suppress_health_check=HealthCheck)
    def ask(case):
        answer = case.call_and_validate(
            headers={"Authorization": f"Bearer {key[0]}"},
            # A schema cannot say which bytes are an image.
            excluded_checks=[positive_data_acceptance],
        )
        statuses.add(answer.status_code)

    ask()
    assert 200 in statuses or mode is GenerationMode.NEGATIVE


def test_document_names_the_key_each_status_and_no_unknown_body(document):
    operations = document.raw_schema["paths"]
    named = {(method.upper(), path) for path, methods in operations.items() for method in methods}
    assert named == set(OPERATIONS)
    judged = operations["/v1/images"]["post"]
    statuses = {"200", "400", "401", "408", "413", "415", "422", "429", "500", "503"}
    assert set(judged["responses"]) == statuses
    assert judged["security"] == [{"HTTPBearer": []}, {"APIKeyHeader": []}]
    assert [parameter["name"] for parameter in judged["parameters"]] == ["name"]
    assert list(operations["/metrics"]["get"]["responses"]["200"]["content"]) == ["text/plain"]
    assert "HTTPValidationError" not in str(document.raw_schema)
