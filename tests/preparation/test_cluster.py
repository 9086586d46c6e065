"""--cluster ray gives the bytes that one machine gives, on two local nodes with one folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from real_vs_ai.core.parallel import Pool, chunked, run_chunks
from real_vs_ai.preparation.archives import zip_folder
from tests.preparation.material import (
    FOUR_TO_ONE,
    augment,
    describe_worker,
    make_train_test,
    merge,
    snapshot,
    split,
    unpack,
)
from tests.ray_nodes import start_nodes


def run_stages(folder, *, cluster):
    """Every stage that takes --cluster, each on what the one before made."""
    make_train_test(folder / "set", train=30, test=8)
    archive = folder / "archives" / "set.zip"
    zip_folder(folder / "set", output=archive, entries=None, overwrite=False)
    unpack(archive, folder / "raw", pool=Pool(1, cluster))
    options = {"fractions": FOUR_TO_ONE, "near_duplicates": "group", "cluster": cluster}
    split(folder / "raw" / "set", folder / "split", **options)
    # Without its manifest the merger looks at every file itself; equalising encodes them again.
    (folder / "split" / "set" / "manifest.csv").unlink()
    merge([folder / "split" / "set"], folder, equalise=8, confounds=True, cluster=cluster)
    augment(folder, copies=1, seed=1, pool=Pool(1, cluster))
    files = snapshot(folder)
    # A zip holds the times of its files.
    del files["archives/set.zip"]
    return files


def test_missing_ray_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"\.\[ray\]"):
        list(
            run_chunks(
                describe_worker, [[1]], pool=Pool(1, "ray"), description="Working", unit="item"
            )
        )


@pytest.mark.slow
@pytest.mark.optional
def test_two_ray_nodes_and_one_machine_write_equal_bytes(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    import ray
    from ray.cluster_utils import Cluster

    local = run_stages(tmp_path / "local" / "data", cluster=None)
    cluster = start_nodes(lambda: Cluster(initialize_head=True, head_node_args={"num_cpus": 1}))
    try:
        start_nodes(lambda: cluster.add_node(num_cpus=1))
        # As on a real cluster: the workers find the package where the scripts lie.
        environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
        ray.init(address=cluster.address, logging_level="ERROR", runtime_env=environment)
        chunks = chunked(range(40), size=1)
        workers = list(
            run_chunks(describe_worker, chunks, pool=Pool(1, "ray"), description="x", unit="y")
        )
        assert [item for item, _ in workers] == list(range(40))
        assert os.getpid() not in {pid for _, pid in workers}
        assert run_stages(tmp_path / "cluster" / "data", cluster="ray") == local
    finally:
        ray.shutdown()
        cluster.shutdown()
