"""A whole run on small folders trains, stops, resumes and tells the user."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from small_runs import Killed, begin, read_history, train, write_splits

from real_vs_ai.core.images import open_image, resize_image
from real_vs_ai.dataset.labelled_images import LabelledImages, source_weights
from real_vs_ai.models.model_file import read_metadata
from real_vs_ai.models.runs import newest_run
from real_vs_ai.out_of_distribution.check import read_check
from real_vs_ai.out_of_distribution.pixel_classifier import PixelNetwork
from real_vs_ai.training import callbacks, devices, loop, run_folder
from real_vs_ai.training.images import image_weights

pytestmark = pytest.mark.usefixtures("tiny", "blank_figures")


def test_trained_model_knows_its_classes_up_to_the_verdict(parse, data):
    """Red images are Fake, blue ones Real: any swap of the order would show."""
    said = []
    result = train(parse("--epochs", "4", "--learning-rate", "0.01"), say=said.append)
    assert result.metrics["test"]["accuracy"]["value"] == 1.0
    assert newest_run(result.run.path.parent) == result.run
    model = keras.models.load_model(result.run.model)
    metadata = read_metadata(result.run.model)
    assert metadata.class_names == ("Fake", "Real")
    for index, name in enumerate(metadata.class_names):
        pixels = resize_image(open_image(data / "test" / name / "source__000.png"), 32)
        assert model([pixels[None].astype(np.float32)]).numpy()[0].argmax() == index
    rows = read_history(result.run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {"precision", "recall", "auc", "f1", "val_f1", "learning_rate"} <= rows[0].keys()
    assert not result.run.checkpoints.exists()
    assert any("Random weights" in line for line in said)
    check = read_check(result.run.model)
    assert check.layer == "head_dense"
    assert metadata.training_images["scale"] == {"low": 32.0, "median": 32.0, "high": 32.0}
    # Pure noise is not what these images look like.
    noise = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    features = keras.Model(model.inputs, model.get_layer(check.layer).output)
    reasons = check.compare(features([noise.astype(np.float32)]).numpy(), noise)
    assert all(reasons)
    assert result.metrics["out_of_distribution"]["test"]["n"] == 24
    assert result.metrics["out_of_distribution"]["test"]["share"] < 0.5
    assert "share out-of-distribution" in result.run.model_card.read_text()
    assert "accuracy" in str(result)


def test_config_names_options_seed_versions_git_data_and_command(parse, monkeypatch):
    run = begin(monkeypatch, parse("--epochs", "1", "--seed", "5")).run
    config = json.loads(run.config.read_text())
    assert config["seed"] == 5
    assert config["options"]["image_size"] == 32
    assert config["versions"]["keras"] == keras.__version__
    assert len(config["data"]["fingerprint"]) == 64
    assert config["data"]["counts"]["train"] == {"Fake": 24, "Real": 24}
    assert "--seed" in config["command"]
    repeated = parse("--recipe", str(run.config), "--epochs", "1")
    expected = parse("--epochs", "1", "--seed", "5").stored()
    assert repeated.stored() == {**expected, "recipe": str(run.config)}


def test_learning_rate_falls_over_a_stages_own_epochs_after_an_early_stop_before_it(
    parse, short, monkeypatch
):
    count = callbacks.StopTrainingOnValidationLoss.on_epoch_end

    def stop_after_the_first_epoch(self, epoch, logs=None):
        count(self, epoch, logs)
        self.model.stop_training = epoch == 0

    monkeypatch.setattr(
        callbacks.StopTrainingOnValidationLoss, "on_epoch_end", stop_after_the_first_epoch
    )
    fields = "frozen_epochs=4 early_stopping=9 fine_tune_learning_rate=0.001"
    options = parse(f"--epochs 2 --learning-rate 0.01 --set {fields}")
    rows = read_history(train(options).run)
    assert [row["stage"] for row in rows] == ["frozen"] + ["fine-tuning"] * 2
    rates = [float(row["learning_rate"]) for row in rows]
    # From the whole to 1 % in equal steps, read after each epoch.
    expected = [0.01 * (1 - 0.99 / 4), *(0.001 * (1 - 0.99 * k / 2) for k in (1, 2))]
    assert rates == pytest.approx(expected, rel=1e-4)


def test_the_losses_of_unbalanced_classes_are_of_one_kind(parse, short, monkeypatch):
    options = parse("--epochs", "1")
    for index in range(12):
        (options.data / "train" / "Fake" / f"source__{index:03}.png").unlink()
    found = {}

    def watched(name):
        def batches(decoded, *, weights, **named):
            found[name] = [set(weights[decoded.labels == i]) for i in (0, 1)]
            if len(found) == 2:
                raise Killed

        monkeypatch.setattr(loop, name, batches)

    watched("training_batches")
    watched("evaluation_batches")
    with pytest.raises(Killed):
        train(options)
    assert list(found.values()) == [[{1.5}, {0.75}]] * 2


def labelled(folder, *, fake, real):
    """Images of these sources, of the one class and of the other."""
    sources = (*fake, *real)
    labels = np.repeat([0, 1], [len(fake), len(real)]).astype(np.int32)
    names = tuple(map(str, range(len(sources))))
    return LabelledImages(folder, names, labels, ("Fake", "Real"), sources)


def test_sources_count_by_the_root_of_their_size(tmp_path):
    images = labelled(tmp_path, fake="aaaab", real="ccccc")
    weights = source_weights(images.labels, images.sources)
    assert weights.mean() == pytest.approx(1)
    assert weights[:5].sum() == pytest.approx(weights[5:].sum())
    assert weights[:4].sum() == pytest.approx(2 * weights[4])


def test_large_sources_give_a_limited_number_of_images(tmp_path):
    images = labelled(tmp_path, fake="aaaab", real="aaccc")
    limited = images.limited(2, seed=1)
    # A source of both classes gives so many of each.
    assert limited.sources == ("a", "a", "b", "a", "a", "c", "c")
    assert limited.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert limited.paths == images.limited(2, seed=1).paths
    assert limited.paths != images.limited(2, seed=2).paths


def test_head_trained_on_stored_features_works_in_the_whole_model(parse, data, monkeypatch):
    monkeypatch.setattr(devices, "best_precision", lambda gpus: "float32")
    fields = "stored_features=true frozen_epochs=40 pooling=stages dense_units=0 early_stopping=99"
    learning = "--epochs 0 --augmentation none --learning-rate 0.05 --l2 1e-4"
    result = train(parse(f"{learning} --set {fields} target_error=0.2"))
    assert result.metrics["test"]["accuracy"]["value"] > 0.9
    assert result.metrics["thresholds"]["target_error"] == 0.2
    model = keras.models.load_model(result.run.model)
    pixels = resize_image(open_image(data / "test" / "Fake" / "source__000.png"), 32)
    assert model([pixels[None].astype(np.float32)]).numpy()[0].argmax() == 0


def test_frozen_stage_leaves_the_backbone_as_it_was(parse, short, first_model):
    first = first_model()
    second = train(parse(f"--weights {first} --set frozen_epochs=1 --epochs 0"))
    before, after = map(keras.models.load_model, (first, second.run.model))
    for name in ("conv0", "conv1_bn"):
        for a, b in zip(before.get_layer(name).weights, after.get_layer(name).weights, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(
        before.get_layer("head_dense").kernel, after.get_layer("head_dense").kernel
    )


def test_existing_run_is_never_written_over(parse, monkeypatch):
    run = begin(monkeypatch, parse("--run-name", "run")).run
    with pytest.raises(FileExistsError, match="already exists"):
        train(parse("--run-name", "run"))
    run.model.touch()
    run.metrics.write_text("{}")
    with pytest.raises(ValueError, match="is finished"):
        parse("--resume", str(run.path))


def test_splits_with_other_classes_are_told_before_anything_is_made(parse, data):
    (data / "validation" / "Real").rename(data / "validation" / "Other")
    with pytest.raises(ValueError, match="Expected the classes Fake, Real in"):
        train(parse())
    assert not parse().models_dir.exists()


def test_class_whose_images_are_all_broken_is_told(parse, data):
    for path in (data / "validation" / "Real").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(ValueError, match="readable images of every class"):
        train(parse())


def test_weights_that_cannot_be_downloaded_leave_no_run_behind(parse, short):
    with pytest.raises(OSError, match="--weights none"):
        train(parse("--weights", "imagenet"))
    assert not parse().models_dir.exists()


def test_only_unbalanced_classes_are_weighted(tmp_path):
    even = labelled(tmp_path, fake="a" * 100, real="a" * 105)
    uneven = labelled(tmp_path, fake="a" * 100, real="a" * 300)
    assert image_weights(even, even, balance="classes") is None
    weights = image_weights(even, uneven, balance="classes")
    assert weights[:100] == pytest.approx(2.0)
    assert weights[100:] == pytest.approx(2 / 3)


def test_crops_are_learnt_judged_and_recorded_in_the_model_file(parse, tmp_path, monkeypatch):
    """Red images are Fake, blue ones Real, as large pictures of which the network sees crops."""
    from real_vs_ai.core.images import decode_image
    from real_vs_ai.serving.detector import Detector
    from real_vs_ai.verdicts.predictions import read_predictions

    monkeypatch.setattr(devices, "best_precision", lambda gpus: "float32")
    root = write_splits(tmp_path / "large", counts=(16, 8, 4), size=90)
    arguments = "--set input=crops crops=4 views=3 --augmentation flip --epochs 4"
    result = train(parse(arguments, "--learning-rate 0.01", data=root))
    model_input = read_metadata(result.run.model).model_input
    assert (model_input.kind, model_input.crops, model_input.size) == ("crops", 4, 32)
    predictions = read_predictions(result.run.predictions).of_split("test")
    assert len(predictions) == 8
    model = keras.models.load_model(result.run.model)
    image = decode_image(tmp_path / "large" / predictions.paths[0])
    outputs = model([model_input.prepare(image).astype(np.float32)]).numpy()
    expected = model_input.aggregate(outputs[None])[0]
    assert predictions.probabilities[0] == pytest.approx(expected, abs=1e-5)
    detector = Detector.open(result.run.model, engine="openvino", precision="f32")
    verdicts = [detector.predict(root / path) for path in predictions.paths]
    assert [verdict.label for verdict in verdicts] == predictions.verdicts.tolist()
    codes = [verdict.reasons[0].code if verdict.reasons else "" for verdict in verdicts]
    assert codes == predictions.reasons.tolist()


def test_whole_network_learns_from_crops_by_averaged_weights_and_a_rate_that_falls_to_0(
    parse, tmp_path, short
):
    """Two hundred pictures of two sources a class, of which one is ten times the other."""
    root = write_splits(tmp_path / "large", counts=(80, 12, 8), size=60)
    for label in ("Fake", "Real"):
        for path in sorted((root / "train" / label).iterdir())[:8]:
            path.rename(path.with_name(path.name.replace("source__", "rare__")))
    arguments = ("--recipe", "photographs-whole", "--epochs", "3", "--learning-rate", "0.01")
    fields = ("views=3", "averaging=0.8", "warmup_steps=5", "fine_tune_learning_rate=0.01")
    fields += ("frozen_epochs=1", "steps_per_epoch=5", "pooling=global-average", "dense_units=0")
    said = []
    result = train(parse(*arguments, "--set", *fields, data=root), say=said.append)
    rows = read_history(result.run)
    assert [row["stage"] for row in rows] == ["frozen"] + ["fine-tuning"] * 3
    assert [float(row["learning_rate"]) for row in rows][-1] == 0.0
    assert float(rows[-1]["val_loss"]) < float(rows[0]["val_loss"])
    assert float(rows[-1]["val_accuracy"]) > 0.8
    assert result.progress.best_epoch == 4
    assert any("by the root of its size" in line for line in said)


def test_finished_model_is_finished_again_and_learns_to_refuse_thumbnails(
    parse, tmp_path, short, first_model, monkeypatch
):
    """Nothing is trained: the model is the same, with what its recipe asks for besides."""
    one = np.ones(1, np.float32)
    network = PixelNetwork((np.ones((3, 3, 3, 1), np.float32),), (one,), one, least_score=0.0)

    def fit(check, splits, metadata, *, folders, **_):
        return dataclasses.replace(check, network=network), f"fitted on {folders}"

    monkeypatch.setattr(run_folder, "fit_on_thumbnails", fit)
    first, said = first_model(), []
    again = f"--epochs 0 --weights {first} --set frozen_epochs=0 mirror_below=0.8"
    taught = train(parse(again, f"thumbnails={tmp_path / 'other'}"), say=said.append)
    assert taught.progress.epoch == 0
    assert read_metadata(taught.run.model).model_input.mirror_below == 0.8
    assert any(str(tmp_path / "other") in line and "fitted on" in line for line in said)
    models = [keras.models.load_model(path) for path in (first, taught.run.model)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert read_check(taught.run.model).network is not None


def test_kept_weights_lie_between_the_first_and_the_learnt_ones(parse, short, first_model):
    first = first_model()
    begun = f"--weights {first} --epochs 1 --set frozen_epochs=0 blend="
    learnt = train(parse(f"{begun}1 --run-name learnt")).run.model
    kept = train(parse(f"{begun}0.25 --run-name kept")).run.model
    weights = [keras.models.load_model(path).get_weights() for path in (first, learnt, kept)]
    for a, b, found in zip(*weights, strict=True):
        np.testing.assert_allclose(found, 0.75 * a + 0.25 * b, atol=1e-5)
