"""Images get verdicts; every other request gets a clear refusal."""

from __future__ import annotations

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from real_vs_ai import __version__
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.service.access import Limits, add_key, read_keys
from real_vs_ai.service.application import create_application
from real_vs_ai.service.judging import LocalJudge
from tests.serving.trivial_model import METADATA, encode, save_model, uniform_image

BRIGHT, DARK = encode(uniform_image(250)), encode(uniform_image(5))
BROKEN = b"\xff\xd8\xff\xe0 no image"


def as_files(*contents: bytes) -> list:
    return [("files", (f"{index}.png", data)) for index, data in enumerate(contents)]


def client_with(judge, *, keys=None, limits=None, origins=()) -> TestClient:
    application = create_application(judge, limits=limits or Limits(), keys=keys, origins=origins)
    return TestClient(application)


def assert_refused(response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"]


def test_each_file_gets_its_verdict_and_a_broken_one_an_error(client, model_path):
    response = client.post("/v1/images", files=as_files(BRIGHT, BROKEN, DARK))
    assert response.status_code == 200
    document = response.json()
    fake, broken, real = document["images"]
    assert [fake["path"], fake["label"], fake["error"]] == ["0.png", "Fake", ""]
    assert [real["path"], real["label"], real["error"]] == ["2.png", "Real", ""]
    assert broken["label"] == "" and "image" in broken["error"]
    assert fake["probability_fake"] > 0.9 and fake["probabilities"]["Fake"] > 0.9
    assert fake["sha256"] == hashlib.sha256(BRIGHT).hexdigest()
    assert fake["reasons"][0]["code"] == "not_calibrated" and fake["reasons"][0]["sentence"]
    codes = [image["conclusion"] for image in document["images"]]
    assert codes == ["looks_ai", "unreadable", "looks_photograph"]
    assert (fake["title"], fake["from_file"]) == ("Looks AI-generated", "")
    assert "looks AI-generated" in fake["from_model"] and fake["next_steps"]
    digest = hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert document["models"] == {fake["model"]: digest} and broken["model"] == ""
    (model,) = client.get("/v1/models").json()["models"]
    assert (model["name"], model["sha256"]) == (fake["model"], digest)
    assert model["thresholds"] == {"lower": 0.5, "upper": 0.5}
    assert document["version"] == __version__


def test_each_image_is_judged_by_the_released_model_of_its_size(tmp_path):
    released = tmp_path / "released"
    for folder, size in ((released, 32), (released / "photographs", 200)):
        folder.mkdir()
        sizes = summarise_training_images([size], [size], [""])
        save_model(folder / "model.h5", dataclasses.replace(METADATA, training_images=sizes))
    judge = LocalJudge(released, limits=Limits())
    judge.detector()
    with client_with(judge) as client:
        assert len(client.get("/v1/models").json()["models"]) == 2
        large = encode(uniform_image(250, (200, 200)))
        images = client.post("/v1/images", files=as_files(large, BRIGHT)).json()["images"]
    judge.close()
    assert [image["model"] for image in images] == ["released/photographs", "released"]
    assert [image["label"] for image in images] == ["Fake", "Fake"]


def test_service_names_the_model_that_it_opened_though_the_file_was_replaced(tmp_path):
    path = save_model(tmp_path / "model.h5", METADATA)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    judge = LocalJudge(path, limits=Limits())
    judge.detector()
    save_model(tmp_path / "new.h5", dataclasses.replace(METADATA, created="later")).replace(path)
    with client_with(judge) as client:
        (model,) = client.get("/v1/models").json()["models"]
        answered = client.post("/v1/images", content=BRIGHT).json()["models"]
    judge.close()
    assert model["sha256"] == digest and list(answered.values()) == [digest]


def test_image_may_be_the_whole_body(client):
    response = client.post("/v1/images?name=sun.png", content=BRIGHT)
    (image,) = response.json()["images"]
    assert (image["path"], image["label"], image["format"]) == ("sun.png", "Fake", "PNG")


def test_only_unreadable_files_answer_422_with_their_errors(client):
    response = client.post("/v1/images", files=as_files(BROKEN, b"text"))
    assert response.status_code == 422
    assert all(image["error"] for image in response.json()["images"])


@pytest.mark.parametrize(
    "limits", [Limits(max_image_pixels=1000), Limits(max_image_bytes=100)], ids=["pixels", "bytes"]
)
def test_too_large_image_answers_413_with_its_error(model_path, limits):
    judge = LocalJudge(model_path, limits=limits)
    judge.detector()
    with client_with(judge, limits=limits) as client:
        response = client.post("/v1/images", content=BRIGHT)
    judge.close()
    assert response.status_code == 413
    assert "the limit is" in response.json()["images"][0]["error"]


def test_too_many_images_are_refused(judge):
    with client_with(judge, limits=Limits(max_images=2)) as client:
        assert client.post("/v1/images", files=as_files(BRIGHT, DARK)).status_code == 200
        response = client.post("/v1/images", files=as_files(BRIGHT, DARK, DARK))
    assert_refused(response, 413, "too_many_images")


@pytest.mark.parametrize("declared", [True, False])
def test_too_large_request_is_refused_before_it_is_held(judge, declared):
    body = bytes(3000)
    content = body if declared else iter([body[:1500], body[1500:]])
    limits = Limits(max_request_bytes=2000)
    with client_with(judge, limits=limits) as client:
        assert_refused(client.post("/v1/images", content=content), 413, "too_large")


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        ({"content": b""}, 400, "no_images"),
        ({"files": [("picture", ("a.png", BRIGHT))]}, 400, "no_images"),
        ({"data": {"files": "text"}, "files": [("x", ("a", b"a"))]}, 400, "no_images"),
        ({"json": {"url": "http://example.org/a.png"}}, 415, "unsupported_media_type"),
        (
            {"content": b"no form", "headers": {"content-type": "multipart/form-data"}},
            400,
            "bad_form",
        ),
    ],
)
def test_request_without_images_says_what_was_expected(client, arguments, status, code):
    assert_refused(client.post("/v1/images", **arguments), status, code)


def test_unknown_address_and_method_are_refused_in_the_same_form(client):
    assert_refused(client.get("/v2/images"), 404, "not_found")
    assert_refused(client.get("/v1/images"), 405, "method_not_allowed")
    assert client.post("/healthz").headers["allow"] == "GET, HEAD"


def test_full_service_says_when_to_come_back(judge):
    limits = Limits(max_held_bytes=10)
    with client_with(judge, limits=limits) as client:
        response = client.post("/v1/images", content=BRIGHT)
        assert_refused(response, 429, "busy")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert client.get("/healthz").status_code == 200


def test_requests_need_a_valid_key_where_there_are_keys(judge, tmp_path):
    key = add_key(tmp_path / "keys.txt", name="newsroom")
    with client_with(judge, keys=read_keys(tmp_path / "keys.txt")) as client:
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": key + "x"}):
            assert_refused(
                client.post("/v1/images", content=BRIGHT, headers=wrong), 401, "unauthorized"
            )
        for right in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            assert client.post("/v1/images", content=BRIGHT, headers=right).status_code == 200
        assert client.get("/metrics").status_code == client.get("/v1/models").status_code == 401
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_model_that_cannot_be_used_leaves_the_service_unready(model_path, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("no engine")

    monkeypatch.setattr("real_vs_ai.serving.detector.open_engine", refuse)
    judge = LocalJudge(model_path, limits=Limits())
    with pytest.raises(RuntimeError):
        judge.detector()
    with client_with(judge) as client:
        assert client.get("/healthz").status_code == 200
        assert_refused(client.get("/readyz"), 503, "not_ready")
        assert_refused(client.post("/v1/images", content=BRIGHT), 503, "not_ready")
    judge.close()


def test_metrics_count_requests_and_images(judge):
    with client_with(judge) as client:
        client.post("/v1/images", files=as_files(BRIGHT, BROKEN))
        client.get("/no/such/page")
        text = client.get("/metrics").text
    assert 'real_vs_ai_requests_total{path="/v1/images",status="200"} 1.0' in text
    assert 'real_vs_ai_requests_total{path="other",status="404"} 1.0' in text
    assert 'real_vs_ai_images_total{conclusion="looks_ai"} 1.0' in text
    assert 'real_vs_ai_images_total{conclusion="unreadable"} 1.0' in text
    assert "real_vs_ai_held_bytes 0.0" in text


def test_many_clients_at_once_get_each_their_own_answer(client):
    def ask(level: int) -> tuple[str, float]:
        data = encode(uniform_image(level))
        (image,) = client.post(f"/v1/images?name={level}", content=data).json()["images"]
        assert image["sha256"] == hashlib.sha256(data).hexdigest()
        return image["path"], image["probability_fake"]

    levels = range(0, 256, 5)
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(ask, levels))
    assert [name for name, _ in answers] == [str(level) for level in levels]
    probabilities = [probability for _, probability in answers]
    assert (
        probabilities == sorted(probabilities) and probabilities[0] < 0.1 < 0.9 < probabilities[-1]
    )


def test_browser_that_opens_the_service_finds_its_documentation(client):
    response = client.get("/")
    assert response.status_code == 200 and response.url.path == "/docs"
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f'"/docs/files/{name}"' in response.text
        assert client.get(f"/docs/files/{name}").status_code == 200
    assert "https://" not in response.text


def test_pages_of_other_origins_may_ask_only_where_an_option_lets_them(judge):
    origin = {"origin": "https://news.example", "access-control-request-method": "POST"}
    with client_with(judge) as client:
        assert_refused(client.options("/v1/images", headers=origin), 405, "method_not_allowed")
        assert "access-control-allow-origin" not in client.get("/healthz", headers=origin).headers
    with client_with(judge, origins=["https://news.example"]) as client:
        asked = client.options("/v1/images", headers=origin)
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == "https://news.example"
        answered = client.post("/v1/images", content=b"", headers=origin)
        assert_refused(answered, 400, "no_images")
        assert answered.headers["access-control-allow-origin"] == "https://news.example"
        other = client.options("/v1/images", headers=origin | {"origin": "https://else.example"})
        assert "access-control-allow-origin" not in other.headers


def test_fault_of_the_service_is_json_too(judge, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr("real_vs_ai.service.application.score_document", fail)
    application = create_application(judge, limits=Limits(), keys=None)
    with TestClient(application, raise_server_exceptions=False) as client:
        assert_refused(client.post("/v1/images", content=BRIGHT), 500, "internal_error")
