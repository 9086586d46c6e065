"""The real server stops gracefully and refuses bad settings before it listens."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

import ApiServer
from tests.serving.trivial_model import encode, uniform_image

SCRIPT = Path(ApiServer.__file__)


@contextmanager
def running_server(model_path: Path, *options: str):
    arguments = [sys.executable, str(SCRIPT), "--model", str(model_path), "--port", "0", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found, "the server did not start"
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def wait_until(port: int, address: str, condition: Callable[[int, bytes], bool]) -> None:
    """Ask until the status and the body meet the condition."""
    while True:
        connection = http.client.HTTPConnection("localhost", port, timeout=300)
        connection.request("GET", address)
        response = connection.getresponse()
        if condition(response.status, response.read()):
            return
        time.sleep(0.05)


def wait_until_ready(port: int) -> None:
    wait_until(port, "/readyz", lambda status, body: status == 200)


def wait_until_stopping(port: int) -> None:
    wait_until(port, "/readyz", lambda status, body: b'"stopping"' in body)


def wait_until_counted(port: int, number: int) -> None:
    in_flight = re.compile(rb"requests_in_flight ([\d.]+)")
    wait_until(port, "/metrics", lambda status, body: float(in_flight.search(body)[1]) >= number)


def begin_request(port: int, *, size: int, sent: bytes) -> http.client.HTTPConnection:
    """Send the head of a request and a part of its body."""
    connection = http.client.HTTPConnection("localhost", port, timeout=300)
    connection.putrequest("POST", "/v1/images")
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    connection.send(sent)
    return connection


def outcome_of(connection: http.client.HTTPConnection) -> tuple[int, dict]:
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_sigterm_answers_the_request_in_flight_and_exits_with_0(model_path):
    data = encode(uniform_image(250))
    with running_server(model_path) as (process, port):
        wait_until_ready(port)
        connection = begin_request(port, size=len(data), sent=data[:50])
        wait_until_counted(port, 1)
        process.send_signal(signal.SIGTERM)
        wait_until_stopping(port)
        connection.send(data[50:])
        status, document = outcome_of(connection)
        assert (status, document["images"][0]["label"]) == (200, "Fake")
        assert process.wait(timeout=300) == 0


@pytest.mark.slow
def test_sigterm_under_load_gives_each_client_an_answer_or_a_refusal(model_path):
    # Decoding these takes longer than the service has.
    photograph = encode(uniform_image(250, (6000, 8000)))
    with running_server(model_path) as (process, port), ThreadPoolExecutor(30) as clients:
        wait_until_ready(port)
        silent = begin_request(port, size=100, sent=b"half")
        asked = []
        for number in range(30):
            body = as_form([photograph + bytes([number, copy]) for copy in range(number % 5 + 1)])
            asked.append(clients.submit(send, port, body))
        wait_until_counted(port, 10)
        process.send_signal(signal.SIGTERM)
        wait_until_stopping(port)
        late = clients.submit(send, port, as_form([photograph]))
        outcomes = [future.result() for future in [*asked, late]]
        outcomes.append(outcome_of(silent))
        assert process.wait(timeout=300) == 0
        assert process.stderr.read() == ""
    for number, (status, document) in enumerate(outcomes):
        if status == 200:
            assert [image["label"] for image in document["images"]] == ["Fake"] * (number % 5 + 1)
        else:
            assert (status, document["error"]["code"]) == (503, "stopping")
            assert document["error"]["message"]
    assert [status for status, _ in outcomes[-2:]] == [503, 503]


BOUNDARY = "boundary-of-a-test"


def as_form(contents: list[bytes]) -> bytes:
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    parts = [part.encode() + content + b"\r\n" for content in contents]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


def send(port: int, body: bytes) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("localhost", port, timeout=300)
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    connection.request("POST", "/v1/images", body=body, headers={"Content-Type": kind})
    return outcome_of(connection)


def test_refused_upload_is_read_so_that_its_answer_arrives(model_path, tmp_path):
    keys = tmp_path / "keys.txt"
    assert ApiServer.main(["--keys", str(keys), "--new-key", "a"]) == 0
    with running_server(model_path, "--keys", str(keys)) as (_, port):
        connection = http.client.HTTPConnection("localhost", port, timeout=300)
        connection.request("POST", "/v1/images", body=bytes(8_000_000))
        assert connection.getresponse().status == 401


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "0.0.0.0"], "--keys FILE"),
        (["--model", "no/such/model"], "no/such/model"),
        (["--new-key", "a"], "--keys FILE"),
    ],
)
def test_wrong_options_end_with_one_line_before_it_listens(arguments, message, capsys):
    assert ApiServer.main(arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_taken_port_gives_a_one_line_error(model_path, capsys):
    import socket

    with socket.create_server(("localhost", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert ApiServer.main(["--model", str(model_path), "--port", port]) == 1
    assert f"port {port}" in capsys.readouterr().err
