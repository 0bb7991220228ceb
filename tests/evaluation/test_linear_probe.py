"""The linear probe learns what is linear, is blind to what is not there, and knows the ceilings of the demo's task."""

import numpy as np
import pytest

from avshare_jax.evaluation import linear_probe

OPTIONS = {"standardized_c": (0.1,), "whitened_c": (0.01, 0.1), "max_iterations": 200}


def features_of(labels, classes, random, noise=0.3):
    """One-hot classes, rotated, on scales from 0.01 to 100, with noise."""
    rotation = np.linalg.qr(random.normal(size=(classes, classes)))[0]
    return (np.eye(classes)[labels] @ rotation + noise * random.normal(size=(len(labels), classes))) * np.logspace(
        -2, 2, classes
    )


def test_separable_classes_are_found_whatever_the_scale_of_a_feature():
    random = np.random.default_rng(0)
    train_labels, test_labels = random.integers(0, 8, 400), random.integers(0, 8, 200)
    every = features_of(np.concatenate([train_labels, test_labels]), 8, random, noise=0.1)
    assert linear_probe.probe_accuracy(every[:400], train_labels, every[400:], test_labels, **OPTIONS) > 0.98


def test_shuffled_labels_are_at_chance():
    random = np.random.default_rng(0)
    train_labels, test_labels = random.integers(0, 8, 400), random.integers(0, 8, 1000)
    every = features_of(np.concatenate([train_labels, test_labels]), 8, random)
    accuracy = linear_probe.probe_accuracy(
        every[:400], random.permutation(train_labels), every[400:], test_labels, **OPTIONS
    )
    # The classifier's guesses favor whole clusters by accident, so more than a binomial's spread.
    assert abs(accuracy - 1 / 8) < 0.1


def test_a_constant_feature_does_no_harm():
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 100)
    features = np.stack([labels + 0.01 * random.normal(size=100), np.full(100, 7.0)], axis=1)
    assert linear_probe.probe_accuracy(features[:50], labels[:50], features[50:], labels[50:], **OPTIONS) == 1


def test_only_both_modalities_together_tell_the_class(class_names):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 800)
    known = linear_probe.attributes(class_names)
    layer = {
        modality: features_of(np.unique(known[attribute], return_inverse=True)[1][labels], 4, random, noise=0.05)
        for modality, attribute in (("visual", "shape"), ("audio", "timbre"))
    }
    train, test = {"cnn": {m: x[:400] for m, x in layer.items()}}, {"cnn": {m: x[400:] for m, x in layer.items()}}
    found = linear_probe.probe_layers(train, labels[:400], test, labels[400:], **OPTIONS)["cnn"]
    assert found["both"] > 0.98
    assert found["visual"] == pytest.approx(0.5, abs=0.08)
    assert found["audio"] == pytest.approx(0.5, abs=0.08)


def test_videos_without_label_are_left_out(class_names):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 200)
    features = np.eye(8)[labels]
    labels_with_gaps = np.where(np.arange(200) % 4 == 0, -1, labels)
    layers = {"n": {"cnn": {"visual": features, "audio": features}}}
    found = linear_probe.probe_networks(OPTIONS, class_names, layers, labels_with_gaps, layers, labels_with_gaps)
    assert (found["num_train_videos"], found["num_test_videos"]) == (150, 150)
    assert found["targets"]["class"]["n"]["cnn"]["visual"] == 1
    assert found["targets"]["timbre"]["n"]["cnn"]["both"] == 1


@pytest.mark.parametrize("class_names", [(), ("speech",)])
def test_without_classes_there_is_no_probe(class_names):
    assert linear_probe.probe_networks(OPTIONS, class_names, {}, np.zeros(0, int), {}, np.zeros(0, int)) is None


def test_levels_of_the_demo(class_names):
    assert linear_probe.reference_levels(class_names) == {
        "class": {"chance": 1 / 8, "visual": 0.5, "audio": 0.5, "both": 1},
        "shape": {"chance": 1 / 4, "visual": 1, "audio": 0.5, "both": 1},
        "timbre": {"chance": 1 / 4, "visual": 0.5, "audio": 1, "both": 1},
    }


@pytest.mark.parametrize(
    "class_names",
    [
        ("playing_guitar", "playing_drums", "mowing_lawn"),  # "drums" tells the class
        ("dog", "cat", "cow", "pig"),
        ("a_b_c", "a_b_d", "e_b_c", "e_b_d"),
    ],
)
def test_other_class_names_have_a_chance_level_only(class_names):
    assert linear_probe.reference_levels(class_names) == {"class": {"chance": 1 / len(class_names)}}


def test_best_accuracy_is_that_of_the_best_guess():
    random = np.random.default_rng(0)
    target, known = random.integers(0, 5, 60), random.integers(0, 3, 60)
    guess = {k: np.bincount(target[known == k]).argmax() for k in range(3)}
    expected = np.mean([guess[k] == t for t, k in zip(target, known, strict=True)])
    assert linear_probe.best_accuracy(target.tolist(), known.tolist()) == pytest.approx(expected)


def test_the_multimodal_layer_has_the_ceiling_of_both(made_up_evaluation):
    ceiling = made_up_evaluation["linear_probe"]["targets"]["class"]["ceiling"]
    assert ceiling["unimodal"] == {"visual": 0.5, "audio": 0.5, "both": 1}
    assert ceiling["multimodal"] == {"visual": 1, "audio": 1, "both": 1}


def one_layer(labels):
    random = np.random.default_rng(0)
    return {"n": {"cnn": {modality: random.normal(size=(len(labels), 3)) for modality in ("visual", "audio")}}}


@pytest.mark.parametrize(
    ("train_labels", "test_labels", "reason"),
    [
        ([], [0, 1], "0 training and 2 test videos have a label"),
        ([0, 1, 0, 1], [0, 1], "4 training and 2 test"),
        ([0, 1] * 10, [-1, -1], "20 training and 0 test"),
        ([0] * 10, [0, 1], "all of one class"),
        ([0, 0, 0, 0, 1] * 4, [0, 1], "all of one class"),  # The other class is among every fifth video only.
    ],
)
def test_too_few_labels_are_a_sentence_and_no_probe(train_labels, test_labels, reason, capsys):
    labels = np.array(train_labels, int), np.array(test_labels, int)
    layers = [one_layer(x) for x in labels]
    assert linear_probe.probe_networks(OPTIONS, ("a", "b"), layers[0], labels[0], layers[1], labels[1]) is None
    assert reason in capsys.readouterr().out


def test_a_class_with_one_training_video_is_no_obstacle():
    labels = np.array([1] + [0, 2] * 10)
    layers = one_layer(labels)
    found = linear_probe.probe_networks(OPTIONS, ("a", "b", "c"), layers, labels, layers, labels)
    assert 0 <= found["targets"]["class"]["n"]["cnn"]["both"] <= 1


def test_an_attribute_that_all_training_videos_have_is_left_out(class_names):
    labels = np.array([0, 1] * 10)
    assert {class_names[label].split("_")[0] for label in labels} == {"disc"}
    layers = one_layer(labels)
    found = linear_probe.probe_networks(OPTIONS, class_names, layers, labels, layers, labels)
    assert set(found["targets"]) == {"class", "timbre"}
