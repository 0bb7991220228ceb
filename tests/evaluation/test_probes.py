"""Probes of all layers: what neither modality tells alone, the ceilings of the demo's task, and missing labels."""

from functools import partial

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from avshare_jax.evaluation import probes
from avshare_jax.evaluation.bootstrap import Bootstrap
from avshare_jax.evaluation.linear_probe import linear_predictions
from avshare_jax.evaluation.neighbors import neighbor_predictions
from tests.evaluation.test_linear_probe import OPTIONS, features_of, several_labels

LINEAR = partial(linear_predictions, **OPTIONS)
VOTE = partial(neighbor_predictions, k=(5,), temperature=0.1)
RESAMPLING = {"resamples": 100, "seed": 0}


def test_only_both_modalities_together_tell_the_class(class_names):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 800)
    known = probes.attributes(class_names)
    layer = {
        modality: features_of(np.unique(known[attribute], return_inverse=True)[1][labels], 4, random, noise=0.05)
        for modality, attribute in (("visual", "shape"), ("audio", "timbre"))
    }
    train, test = {"cnn": {m: x[:400] for m, x in layer.items()}}, {"cnn": {m: x[400:] for m, x in layer.items()}}
    options = {"intervals": Bootstrap(400, **RESAMPLING), "advance": lambda: None}
    found = probes.probe_layers(LINEAR, train, labels[:400], test, labels[400:], **options)[0]["cnn"]
    assert found["both"] > 0.98
    assert found["visual"] == pytest.approx(0.5, abs=0.08)
    assert found["audio"] == pytest.approx(0.5, abs=0.08)


def test_videos_without_label_are_left_out(class_names):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 200)
    features = np.eye(8)[labels]
    labels_with_gaps = np.where(np.arange(200) % 4 == 0, -1, labels)
    layers = {"n": {"cnn": {"visual": features, "audio": features}}}
    found = probes.probe_networks(LINEAR, class_names, layers, labels_with_gaps, layers, labels_with_gaps, **RESAMPLING)
    assert (found["num_train_videos"], found["num_test_videos"]) == (150, 150)
    assert found["targets"]["class"]["n"]["cnn"]["visual"] == 1
    assert found["targets"]["timbre"]["n"]["cnn"]["both"] == 1


@pytest.mark.parametrize("class_names", [(), ("speech",)])
def test_without_classes_there_is_no_probe(class_names):
    assert probes.probe_networks(LINEAR, class_names, {}, np.zeros(0, int), {}, np.zeros(0, int), **RESAMPLING) is None


def test_levels_of_the_demo(class_names):
    assert probes.reference_levels(class_names) == {
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
    assert probes.reference_levels(class_names) == {"class": {"chance": 1 / len(class_names)}}


def test_best_accuracy_is_that_of_the_best_guess():
    random = np.random.default_rng(0)
    target, known = random.integers(0, 5, 60), random.integers(0, 3, 60)
    guess = {k: np.bincount(target[known == k]).argmax() for k in range(3)}
    expected = np.mean([guess[k] == t for t, k in zip(target, known, strict=True)])
    assert probes.best_accuracy(target.tolist(), known.tolist()) == pytest.approx(expected)


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
    assert probes.probe_networks(LINEAR, ("a", "b"), layers[0], labels[0], layers[1], labels[1], **RESAMPLING) is None
    assert reason in capsys.readouterr().out


def test_a_class_with_one_training_video_is_no_obstacle():
    labels = np.array([1] + [0, 2] * 10)
    layers = one_layer(labels)
    found = probes.probe_networks(LINEAR, ("a", "b", "c"), layers, labels, layers, labels, **RESAMPLING)
    assert 0 <= found["targets"]["class"]["n"]["cnn"]["both"] <= 1


def test_an_attribute_that_all_training_videos_have_is_left_out(class_names, capsys):
    labels = np.array([0, 1] * 10)
    assert {class_names[label].split("_")[0] for label in labels} == {"disc"}
    layers = one_layer(labels)
    found = probes.probe_networks(LINEAR, class_names, layers, labels, layers, labels, **RESAMPLING)
    assert set(found["targets"]) == {"class", "timbre"}
    assert "probes fitted: 6 of 6" in capsys.readouterr().err  # two targets with three parts each


@pytest.mark.parametrize("probe", [LINEAR, VOTE])
def test_intervals_hold_the_value_and_shrink_with_the_videos(probe, class_names):
    random = np.random.default_rng(0)
    labels = random.integers(0, 8, 900)
    layer = {modality: features_of(labels, 8, random, noise=1.0) for modality in ("visual", "audio")}

    def measured(videos):
        test = {"n": {"cnn": {name: x[100 : 100 + videos] for name, x in layer.items()}}}
        train = {"n": {"cnn": {name: x[:100] for name, x in layer.items()}}}
        found = probes.probe_networks(
            probe, class_names, train, labels[:100], test, labels[100 : 100 + videos], **RESAMPLING
        )["targets"]["class"]
        return found["n"]["cnn"]["both"], found["intervals"]["n"]["cnn"]["both"]

    widths = []
    for videos in (50, 800):
        value, (low, high) = measured(videos)
        assert low < value < high
        widths.append((high - low) / np.sqrt(value * (1 - value) / videos))
    assert widths == pytest.approx([2 * 1.96] * 2, rel=0.3)  # as of the normal distribution


@pytest.mark.parametrize("probe", [LINEAR, VOTE])
def test_videos_with_several_labels_have_a_mean_average_precision(probe):
    random = np.random.default_rng(0)
    train, train_labels = several_labels(random, 200)
    test, test_labels = several_labels(random, 100)
    layers = [{"n": {"cnn": {"visual": x, "audio": x[:, :1]}}} for x in (train, test)]
    found = probes.probe_networks(
        probe, ("a_b", "c_d", "e_f", "g_h"), layers[0], train_labels, layers[1], test_labels, **RESAMPLING
    )
    assert found["metric"] == "mAP" and set(found["targets"]) == {"class"}
    labeled = test_labels.any(1)  # The official script of Charades ranks the others last.
    assert found["num_train_videos"] == 200 > 100 > found["num_test_videos"] == labeled.sum()
    test, test_labels = test[labeled], test_labels[labeled]
    expected = average_precision_score(test_labels, probe([train], train_labels, [test]), average="macro")
    found = found["targets"]["class"]
    assert found["n"]["cnn"]["visual"] == pytest.approx(expected)
    low, high = found["intervals"]["n"]["cnn"]["visual"]
    assert low < expected < high
    assert found["chance"] == pytest.approx(test_labels.mean(0).mean())
    assert found["chance"] < found["n"]["cnn"]["audio"] < found["n"]["cnn"]["visual"]


def test_several_labels_of_which_none_is_given_are_a_sentence(capsys):
    labels = np.zeros((20, 3), np.uint8)
    layers = one_layer(labels)
    assert probes.probe_networks(LINEAR, ("a", "b", "c"), layers, labels, layers, labels, **RESAMPLING) is None
    assert "no video has a label" in capsys.readouterr().out
