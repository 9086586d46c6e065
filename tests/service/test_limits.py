"""Room for requests is bounded, and freed however a request ends."""

from __future__ import annotations

import dataclasses

import pytest

from real_vs_ai.service.limits import Admission, RequestError
from tests.service.conftest import make_limits


def test_room_is_bounded_by_number_and_bytes_and_given_back():
    limits = dataclasses.replace(make_limits(), max_requests=2, max_held_bytes=100)
    admission = Admission(limits)
    busy = pytest.raises(RequestError, match="busy")
    with admission.request(size=60):
        with busy, admission.request(size=41):
            pass
        with (
            admission.request(size=40),
            pytest.raises(RequestError, match="busy"),
            admission.request(size=0),
        ):
            pass
        with pytest.raises(ZeroDivisionError), admission.request(size=40):
            raise ZeroDivisionError
    assert (admission.requests, admission.held_bytes) == (0, 0)


def test_largest_request_always_finds_room_in_an_idle_service():
    limits = make_limits("--max-request-megabytes", "300", "--max-held-megabytes", "1")
    with Admission(limits).request(size=limits.max_request_bytes):
        pass
