"""Every sentence of the five descriptions that this project is for holds, by what a run writes.

One world is made for all of them (`promise_checks.world`). A tiny network stands in for the ResNets
where a run trains, and a whole ResNet101 is built once. docs/promises.md lists the same promises
with command and file.
"""

from __future__ import annotations

import re

import pytest

from real_vs_ai.training.command_line import parse_training_options
from tests.promise_checks import data, reports, training
from tests.promise_checks.world import PROMISES, ROOT, make_world

# Importing them names the promises.
CHECKS = (data, training, reports)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("promises"))


@pytest.fixture(scope="module")
def resnet101():
    """The network that ModelTraining.py trains without options, but for weights and size."""
    from real_vs_ai.networks.model import build_model

    arguments = ["--weights", "none", "--image-size", "32", "--set", "stem_stride=2"]
    options = parse_training_options(arguments, description="test")
    return build_model(options, class_names=("Fake", "Real"))


@pytest.mark.slow
@pytest.mark.parametrize("sentence", PROMISES)
def test_promise(sentence, request):
    check = PROMISES[sentence]
    names = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: request.getfixturevalue(name) for name in names})


def test_docs_list_every_promise():
    table = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d[^|]*?) \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(PROMISES)
