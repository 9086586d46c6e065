"""A cluster gives the scores of one machine, even if a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from real_vs_ai import Detector
from real_vs_ai.serving.image_sources import iterate_sources
from real_vs_ai.serving.judge import judge_files
from real_vs_ai.serving.score_table import score_row
from real_vs_ai.serving.scoring_job import ScoringOptions, open_scorer
from tests.ray_nodes import start_nodes
from tests.serving.trivial_model import encode, uniform_image

ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
pytestmark = [pytest.mark.slow, pytest.mark.optional]


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, on this machine."""
    from ray.cluster_utils import Cluster

    memory = 80 * 2**20
    head = {"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False}
    nodes = start_nodes(lambda: Cluster(initialize_head=True, head_node_args=head))
    start_nodes(lambda: nodes.add_node(num_cpus=1, object_store_memory=memory))
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


@pytest.fixture(scope="module")
def detector(model_path):
    return Detector.open(model_path, engine="openvino", precision="f32", for_batches=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for index in range(1200):
        (folder / f"{index:04}.png").write_bytes(encode(uniform_image(index % 256)))
    (folder / "0500.png").write_bytes(b"broken")
    return folder


def rows(scores, metadata):
    return [score_row(score, metadata) for score in scores]


def ray_worker_processes() -> list[int]:
    import psutil

    me = os.getpid()
    return [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if "ray::_score_chunk" in " ".join(process.info["cmdline"] or [])
        and any(str(parent.pid) == str(me) for parent in process.parents())
    ]


def test_a_cluster_gives_the_same_scores_though_a_worker_dies(cluster, photos, detector):
    scorer = open_scorer(ScoringOptions(model=detector.model_path, cluster="ray", precision="f32"))
    assert scorer.engine == "ray (f32)"
    killed = []

    def kill_one_worker():
        deadline = time.monotonic() + 900
        while not killed and time.monotonic() < deadline:
            for pid in ray_worker_processes()[:1]:
                os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    sources = list(iterate_sources([str(photos)]))
    spread = rows(scorer.score(sources), detector.metadata)
    killer.join()
    local = rows(judge_files(sources, detector=detector, workers=2), detector.metadata)
    assert killed
    assert len(ray.nodes()) == 2
    assert spread == local


def test_without_ray_the_message_says_how_to_get_it(model_path, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(uniform_image(200)))
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from ImageScoring import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    more = ("--cluster", "ray", "--model", str(model_path))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 1
    assert ".[ray]" in done.stderr
