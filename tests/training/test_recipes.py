"""Recipes build the networks they are named after; options given with them win."""

import json
from pathlib import Path

import keras
import pytest

from real_vs_ai.core.errors import InputError
from real_vs_ai.networks.backbones import backbone_layers
from real_vs_ai.networks.model import build_model, set_trainable
from real_vs_ai.training.command_line import describe_recipe, parse_training_options
from real_vs_ai.training.options import RECIPES, plan_stages

ROOT = Path(__file__).resolve().parents[2]


def parse(*arguments):
    return parse_training_options([*arguments, "--weights", "none"], description="")


def options_of(recipe, *arguments):
    return parse("--recipe", recipe, *arguments)


def network(recipe, classes=("Fake", "Real")):
    return build_model(options_of(recipe), class_names=classes)


def head_of(model):
    return [layer for layer in model.layers if layer.name.startswith("head_")]


def types(layers):
    return [type(layer).__name__ for layer in layers]


STANDARD_HEAD = "GaussianNoise GlobalAveragePooling2D Dense Dropout Dense"


@pytest.mark.parametrize(
    ("recipe", "backbone", "size", "head"),
    [
        ("resnet101-cifake", "resnet101", 32, STANDARD_HEAD),
        ("resnet50-two-stage", "resnet50", 224, "AveragePooling2D Flatten Dense Dropout Dense"),
        ("resnet50-augmented", "resnet50", 224, "GlobalAveragePooling2D Dense Dropout Dense"),
        ("resnet101-multiclass", "resnet101", 224, STANDARD_HEAD),
    ],
)
def test_recipe_builds_the_stated_network(recipe, backbone, size, head, tiny):
    classes = ("benign", "malignant", "normal") if "multiclass" in recipe else ("Fake", "Real")
    model = network(recipe, classes)
    assert model.name == backbone
    assert model.input.shape == (None, size, size, 3)
    assert " ".join(types(head_of(model))) == head
    hidden, outputs = [x for x in head_of(model) if isinstance(x, keras.layers.Dense)]
    assert hidden.units == 256
    assert outputs.units == len(classes)
    assert outputs.activation is keras.activations.softmax
    dropout = model.get_layer("head_dropout").rate
    assert dropout == (0.4 if backbone == "resnet101" else 0.5)
    # With the base frozen, only the head's two layers learn.
    set_trainable(model, backbone=False, batch_norm=False)
    assert len(model.trainable_variables) == 4
    assert not any(layer.trainable for layer in backbone_layers(model))


def test_two_stage_recipe_trains_head_first_then_all_layers_slower():
    options = parse_training_options(["--recipe", "resnet50-two-stage"], description="")
    frozen, whole = plan_stages(options)
    assert (frozen.train_backbone, whole.train_backbone) == (False, True)
    assert whole.learning_rate < frozen.learning_rate
    # ImageNet's batch statistics stay in batches of 32.
    assert not whole.train_batch_norm


def test_options_on_the_command_line_win_over_the_recipe():
    assert options_of("resnet50-two-stage").dropout == 0.5
    assert options_of("resnet50-two-stage", "--dropout", "0.2").dropout == 0.2


def test_random_weights_have_no_frozen_stage_unless_asked_for():
    def stages(*arguments):
        return [s.name for s in plan_stages(parse_training_options(arguments, description=""))]

    assert stages("--weights", "none") == ["training"]
    assert stages() == ["frozen", "fine-tuning"]
    assert stages("--weights", "none", "--set", "frozen_epochs=1") == ["frozen", "fine-tuning"]
    assert stages("--epochs", "0") == ["frozen"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "-1"],
        ["--dropout", "2"],
        ["--image-size", "31"],
        ["--backbone", "vgg"],
        ["--batch-size", "x"],
        ["--epochs", "0", "--set", "frozen_epochs=0"],
        ["--run-name", "../away"],
    ],
)
def test_wrong_options_are_usage_errors(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        parse_training_options(arguments, description="")
    assert left.value.code == 2
    assert arguments[0].lstrip("-") in capsys.readouterr().err.replace("_", "-")


def test_precision_takes_the_names_of_scoring_and_those_of_keras():
    for name in ("bf16", "mixed_bfloat16"):
        options = parse_training_options(["--precision", name, "--weights", "none"], description="")
        assert options.precision == "mixed_bfloat16"


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_own_recipe_may_start_from_another_one(tmp_path):
    fields = {"recipe": "photographs-head", "hold_out": ["a", "b"], "stored_features": False}
    path = write(tmp_path / "mine.json", {"description": "An experiment", "views": 2, **fields})
    options = parse("--recipe", path, "--set", "history=0.5", "augmentation=flip")
    assert (options.input, options.pooling) == ("crops", "equal-stages")
    assert (options.views, options.hold_out, options.stored_features) == (2, ("a", "b"), False)
    assert (options.history, options.recipe) == (0.5, path)


def test_record_of_a_run_is_a_recipe_even_with_options_that_are_gone(tmp_path):
    old = {"dropout": 0.25, "tensorboard": True, "keep_checkpoints": False, "portraits": []}
    (tmp_path / "config.json").write_text(json.dumps({"options": old, "seed": 42}))
    for name in (tmp_path, tmp_path / "config.json"):
        assert parse("--recipe", str(name)).dropout == 0.25
    for released in ("", "photographs"):
        assert parse("--recipe", str(ROOT / "models" / "released" / released)).epochs >= 0


def test_recipe_repeats_what_a_run_stored(tmp_path):
    first = parse("--recipe", "photographs-head", "--seed", "7")
    path = write(tmp_path / "config.json", {"options": first.stored()})
    assert parse("--recipe", path).stored() == {**first.stored(), "recipe": path}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"drop_out": 0.5}, r"there is no field drop_out\. Did you mean dropout\?"),
        ({"command": ["x"]}, "there is no field command"),
        ({"dropout": 2}, "dropout: expected a finite number from 0 to 0.95, found 2"),
        ({"epochs": 2.5}, "epochs: expected a whole number"),
        ({"epochs": None}, "epochs: expected a whole number"),
        ({"views": {"a": 1}}, "views: expected a whole number"),
        ({"stored_features": "yes"}, "stored_features: expected true or false, found yes"),
        ({"pooling": "none"}, "pooling: expected global-average, .* found none"),
        ({"recipe": "mine.json"}, "expected a recipe in demo, "),
        ("[]", "is not a recipe"),
        ("{", "is not a recipe"),
        ("[" * 100_000, "is not a recipe"),
        ({"options": 3}, "there is no field options"),
    ],
)
def test_unknown_or_wrong_field_is_one_clear_line(tmp_path, content, message):
    path = write(tmp_path / "mine.json", content)
    with pytest.raises(InputError, match=message) as caught:
        parse("--recipe", path)
    assert "mine.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_recipe_and_wrong_set_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="released-shallow"):
        parse("--recipe", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match="--set: degrade: expected a finite number"):
        parse("--set", "degrade=much")
    with pytest.raises(InputError, match="FIELD=VALUE"):
        parse("--set", "degrade")
    with pytest.raises(FileNotFoundError, match="unfinished run"):
        parse("--resume", "--models-dir", str(tmp_path))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_of_the_project_is_whole(name):
    assert parse("--recipe", name).recipe == name


def test_recipe_says_what_it_set_and_what_was_given_otherwise():
    options = options_of("photographs-head", "--set", "frozen_epochs=3")
    assert options.model_input.is_crops and options.stored_features
    text = describe_recipe(options)
    assert "input crops," in text and "stored_features True," in text
    assert "frozen_epochs 3 (not 30)," in text
