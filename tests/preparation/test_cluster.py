"""--engine ray gives the bytes that one machine gives, on two local nodes with one folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from real_vs_ai.preparation.augmentation import list_originals, plan_copies, write_copies
from real_vs_ai.preparation.layouts import find_layout
from real_vs_ai.preparation.parallel import chunked, run_chunks
from real_vs_ai.preparation.splitting import split_sources
from real_vs_ai.preparation.warping import AffineRanges
from tests.preparation.material import (
    describe_worker,
    make_merged,
    make_train_test,
    snapshot,
    split_options,
)


def run_stages(folder, *, engine):
    make_train_test(folder / "raw" / "set", train=30, test=8)
    split_sources(
        [find_layout(folder / "raw" / "set")], output_dir=folder / "split",
        options=split_options(fractions={"train": 0.8, "validation": 0.2}, engine=engine),
    )  # fmt: skip
    make_merged(folder)
    write_copies(
        plan_copies(list_originals(folder / "train"), total=None, copies=2, seed=1),
        train_dir=folder / "train", output_dir=folder / "augmented_train", seed=1,
        ranges=AffineRanges(rotation=20, shift=0.2, shear=0.2, zoom=0.2, flip=True),
        overwrite=False, workers=1, engine=engine,
    )  # fmt: skip
    return snapshot(folder)


def test_asking_for_ray_without_having_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    with pytest.raises(ValueError, match=r"requirements-ray\.txt"):
        list(
            run_chunks(
                describe_worker, [[1]], n_items=1, workers=1, engine="ray", description="Working",
                unit="item",
            )
        )  # fmt: skip


@pytest.mark.slow
def test_two_ray_nodes_give_the_bytes_of_one_machine(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (requirements-ray.txt)")
    import ray
    from ray.cluster_utils import Cluster

    local = run_stages(tmp_path / "local", engine="local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        # As on a real cluster: the workers find the package where the scripts lie.
        environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}}
        ray.init(address=cluster.address, logging_level="ERROR", runtime_env=environment)
        chunks = chunked(range(40), size=1)
        workers = list(
            run_chunks(
                describe_worker, chunks, n_items=40, workers=1, engine="ray", description="x",
                unit="y",
            )
        )  # fmt: skip
        assert [item for item, _ in workers] == list(range(40))
        assert os.getpid() not in {pid for _, pid in workers}
        assert run_stages(tmp_path / "cluster", engine="ray") == local
    finally:
        ray.shutdown()
        cluster.shutdown()
