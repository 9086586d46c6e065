"""The real server stops gracefully and refuses bad settings before it listens."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

import ApiServer
from tests.serving.trivial_model import encode, uniform_image

SCRIPT = Path(ApiServer.__file__)


@contextmanager
def running_server(model_path: Path, *options: str):
    arguments = [sys.executable, str(SCRIPT), "--model", str(model_path), "--port", "0", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        found = re.search(r":(\d+) ", process.stdout.readline())
        assert found, "the server did not start"
        yield process, int(found[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until_ready(port: int) -> None:
    while True:
        connection = http.client.HTTPConnection("localhost", port, timeout=300)
        connection.request("GET", "/readyz")
        if connection.getresponse().status == 200:
            return


def test_sigterm_answers_the_request_in_flight_and_exits_with_0(model_path):
    data = encode(uniform_image(250))
    with running_server(model_path) as (process, port):
        wait_until_ready(port)
        connection = http.client.HTTPConnection("localhost", port, timeout=300)
        connection.putrequest("POST", "/v1/images")
        connection.putheader("Content-Length", str(len(data)))
        connection.endheaders()
        connection.send(data[:50])
        wait_until_counted(port)
        process.send_signal(signal.SIGTERM)
        # The server has closed its door before the request ends.
        wait_until_refused(port)
        connection.send(data[50:])
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["images"][0]["label"] == "Fake"
        assert process.wait(timeout=300) == 0


def wait_until_counted(port: int) -> None:
    while True:
        connection = http.client.HTTPConnection("localhost", port, timeout=300)
        connection.request("GET", "/metrics")
        if b"requests_in_flight 1.0" in connection.getresponse().read():
            return


def wait_until_refused(port: int) -> None:
    pause = threading.Event()
    while True:
        try:
            http.client.HTTPConnection("localhost", port, timeout=5).connect()
        except OSError:
            return
        pause.wait(0.05)


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
