"""Recipes build the networks they are named after; options given with them win."""

import keras
import pytest

from real_vs_ai.training.backbones import backbone_layers
from real_vs_ai.training.model import set_trainable
from real_vs_ai.training.options import parse_training_options
from real_vs_ai.training.recipes import describe_recipe
from real_vs_ai.training.stages import plan_stages
from real_vs_ai.training.trainer import build_from_options

# Convolutions of the backbones as He et al. (2015) count them, with those of the shortcuts.
CONVOLUTIONS = {"resnet50": 53, "resnet101": 104}


def options_of(recipe, *arguments):
    return parse_training_options(
        ["--recipe", recipe, "--weights", "none", *arguments], description="test"
    )


def network(recipe, classes=("Fake", "Real")):
    return build_from_options(options_of(recipe), classes)


def head_of(model):
    return [layer for layer in model.layers if layer.name.startswith("head_")]


def types(layers):
    return [type(layer).__name__ for layer in layers]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "backbone", "size", "head"),
    [
        (
            "resnet101-cifake",
            "resnet101",
            32,
            ["GaussianNoise", "GlobalAveragePooling2D", "Dense", "Dropout", "Dense"],
        ),
        (
            "resnet50-two-stage",
            "resnet50",
            224,
            ["AveragePooling2D", "Flatten", "Dense", "Dropout", "Dense"],
        ),
        (
            "resnet50-augmented",
            "resnet50",
            224,
            ["GlobalAveragePooling2D", "Dense", "Dropout", "Dense"],
        ),
        (
            "resnet101-multiclass",
            "resnet101",
            224,
            ["GaussianNoise", "GlobalAveragePooling2D", "Dense", "Dropout", "Dense"],
        ),
    ],
)
def test_recipe_builds_the_stated_network(recipe, backbone, size, head):
    classes = ("benign", "malignant", "normal") if "multiclass" in recipe else ("Fake", "Real")
    model = network(recipe, classes)
    assert model.name == backbone
    assert model.input.shape == (None, size, size, 3)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    assert len(convolutions) == CONVOLUTIONS[backbone]
    assert types(head_of(model)) == head
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
    assert stages("--weights", "none", "--frozen-epochs", "1") == ["frozen", "fine-tuning"]
    assert stages("--epochs", "0") == ["frozen"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--epochs", "-1"],
        ["--dropout", "2"],
        ["--image-size", "31"],
        ["--batch-size", "x"],
        ["--epochs", "0", "--frozen-epochs", "0"],
        ["--run-name", "../away"],
        ["--recipe", "unknown"],
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


def test_file_that_is_no_configuration_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"not the config\.json"):
        parse_training_options(["--config", str(tmp_path)], description="")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        parse_training_options(["--config", str(tmp_path / "none.json")], description="")
    with pytest.raises(FileNotFoundError, match="unfinished run"):
        parse_training_options(["--resume", "--models-dir", str(tmp_path)], description="")


def test_recipe_says_what_it_set_and_what_was_given_otherwise():
    options = options_of("photographs", "--frozen-epochs", "3")
    assert options.model_input.is_crops and options.stored_features
    text = describe_recipe("photographs", options.stored())
    assert "--input crops" in text and "--stored-features " in text
    assert text.endswith("Given otherwise: --frozen-epochs 3.")
