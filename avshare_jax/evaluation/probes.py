"""Probes: how well simple classifiers tell the classes apart on frozen features, without training a network.

Two of them: a linear classifier (`linear_probe`) and a vote of the nearest training videos (`neighbors`). Each is
measured on every layer, on its visual part, its audio part and both, with an interval over the test videos.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from avshare_jax.evaluation import bootstrap
from avshare_jax.evaluation.bootstrap import Bootstrap
from avshare_jax.evaluation.linear_probe import held_out, labeled_videos
from avshare_jax.progress import ProgressLine

PARTS = ("visual", "audio", "both")

LayerFeatures = Mapping[str, Mapping[str, np.ndarray]]  # layer → modality → (N, D)

Probe = Callable[[Sequence[np.ndarray], np.ndarray, Sequence[np.ndarray]], np.ndarray]
"""Takes features (N, D) of training videos, one array for each modality, their labels, and the same features of M test
videos. Of labels (N,) int it returns the labels (M,) that it predicts; of labels (N, C) of zeros and ones, where a
video may have several, scores (M, C)."""


def probe_networks(
    probe: Probe,
    class_names: Sequence[str],
    train: Mapping[str, LayerFeatures],
    train_labels: np.ndarray,
    test: Mapping[str, LayerFeatures],
    test_labels: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> dict[str, Any] | None:
    """Probes all layers of all networks for the class, and for its attributes where class names hold them.

    Args:
      probe: the classifier.
      class_names: of the data set.
      train: name → layer → modality → (N, D) features of the training videos.
      train_labels: (N,) int, -1 where a video has no label; such videos are left out. Or (N, C) zeros and ones, where a
        video may have any number of labels.
      test: name → layer → modality → (M, D) features of the test videos.
      test_labels: (M,) int or (M, C), the same; test videos without any label are left out in both cases.
      resamples: of the bootstrap.
      seed: of the bootstrap.

    Returns:
      What `plots.plot_probes` draws: `metric` ("accuracy", or "mAP" where a video may have several labels), and for
      each target the networks' values by layer and part beside `intervals`, [lower, upper end] of each. Attributes that
      are the same in all training videos are left out. None, with a printed reason, where there are not enough labels.
    """
    several = train_labels.ndim > 1
    # Where a video may have several labels, one without any is an example of what is none of the classes.
    kept_train = np.ones(len(train_labels), bool) if several else labeled_videos(train_labels)
    kept_test = labeled_videos(test_labels)
    train = {name: select_videos(layers, kept_train) for name, layers in train.items()}
    test = {name: select_videos(layers, kept_test) for name, layers in test.items()}
    train_labels, test_labels = train_labels[kept_train], test_labels[kept_test]
    if reason := obstacle(train_labels, test_labels):
        print(f"  no probe: {reason}", flush=True)
        return None
    intervals = Bootstrap(len(test_labels), resamples, seed)
    targets, levels = {"class": tuple(class_names)}, reference_levels(class_names)
    if several:
        levels = {"class": {"chance": mean_share(test_labels)}}
    else:
        targets |= attributes(class_names)
    section: dict[str, Any] = {
        "metric": "mAP" if several else "accuracy",
        "num_train_videos": len(train_labels),
        "num_test_videos": len(test_labels),
        "targets": {},
    }
    labels = {"class": (train_labels, test_labels)}
    if not several:
        codes = {target: np.unique(values, return_inverse=True)[1] for target, values in targets.items()}
        labels = {target: (code[train_labels], code[test_labels]) for target, code in codes.items()}
        # Classes that differ may have an attribute in common.
        labels = {target: pair for target, pair in labels.items() if not obstacle(*pair)}
    total = len(labels) * len(PARTS) * sum(len(layers) for layers in train.values())
    done, progress = itertools.count(1), ProgressLine("probes fitted")
    for target, (fitted, tested) in labels.items():
        measured = {
            name: probe_layers(
                probe, train[name], fitted, test[name], tested, intervals, lambda: progress(next(done), total)
            )
            for name in train
        }
        section["targets"][target] = {
            "chance": levels[target]["chance"],
            "ceiling": {
                # In the multimodal layer each modality has seen the other.
                layer: {part: levels[target].get("both" if layer == "multimodal" else part) for part in PARTS}
                for layer in next(iter(train.values()))
            },
            **{name: values for name, (values, _) in measured.items()},
            "intervals": {name: ends for name, (_, ends) in measured.items()},
        }
    return section


def probe_layers(
    probe: Probe,
    train: LayerFeatures,
    train_labels: np.ndarray,
    test: LayerFeatures,
    test_labels: np.ndarray,
    intervals: Bootstrap,
    advance: Callable[[], None],
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, list[float]]]]:
    """Probes every layer on its visual features, its audio features, and both.

    Args:
      probe: the classifier.
      train: layer → modality → (N, D) features of the training videos.
      train_labels: (N,) int or (N, C) zeros and ones.
      test: layer → modality → (M, D) features of the test videos.
      test_labels: (M,) int or (M, C) zeros and ones.
      intervals: of M videos.
      advance: called after each part of a layer.

    Returns:
      layer → part ("visual", "audio", "both") → accuracy or mAP, 0..1; and the same with the ends of the interval.
    """
    values: dict[str, dict[str, float]] = {layer: {} for layer in train}
    ends: dict[str, dict[str, list[float]]] = {layer: {} for layer in train}
    for layer in train:
        for part in PARTS:
            found = probe(select_part(train[layer], part), train_labels, select_part(test[layer], part))
            if test_labels.ndim == 1:
                statistic = bootstrap.mean_of((found == test_labels).astype(float))
            else:
                statistic = bootstrap.mean_average_precision_of(test_labels > 0, found)
            values[layer][part] = bootstrap.figure(statistic, len(test_labels))
            ends[layer][part] = intervals.interval(statistic)
            advance()
    return values, ends


def select_part(features: Mapping[str, np.ndarray], part: str) -> list[np.ndarray]:
    """One layer's (N, D) features of a modality, or of both."""
    return [features[modality] for modality in (("visual", "audio") if part == "both" else (part,))]


def select_videos(features: LayerFeatures, kept: np.ndarray) -> LayerFeatures:
    """The features of the videos where `kept` (N,) is True."""
    return {layer: {modality: x[kept] for modality, x in parts.items()} for layer, parts in features.items()}


def obstacle(train_labels: np.ndarray, test_labels: np.ndarray) -> str:
    """Says why no probe can be fitted to and tested on labels, (N,) or (N, C); empty where one can."""
    parts = held_out(len(train_labels))
    fitted, chosen_on = train_labels[~parts], train_labels[parts]
    if train_labels.ndim > 1 and not all(part.any() for part in (fitted, chosen_on, test_labels)):
        return "no video has a label among those that are fitted to, chosen on or tested on"
    if len(train_labels) < 5 or not len(test_labels):
        return f"{len(train_labels)} training and {len(test_labels)} test videos have a label; 5 and 1 are needed"
    if train_labels.ndim == 1 and len(np.unique(fitted)) < 2:
        return "the labeled training videos, without every fifth, are all of one class"
    return ""


def mean_share(labels: np.ndarray) -> float:
    """The share of videos that have a class, mean of the classes that any of them has: about the mAP of random scores.

    Args:
      labels: (N, C) zeros and ones, not all of them zero.
    """
    shares = labels.mean(axis=0)
    return float(shares[shares > 0].mean())


def attributes(class_names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Reads a shape and a timbre from class names of the form "<shape>_<timbre>".

    Real class names may hold one underscore too, so the names must also form a pattern in which neither attribute
    tells the class: each shape occurs with several timbres, and each timbre with several shapes.

    Returns:
      {"shape": one value per class, "timbre": one value per class}; empty if the names are not of that form.
    """
    pairs = [name.split("_") for name in class_names]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        return {}
    shapes, timbres = (tuple(column) for column in zip(*pairs, strict=True))
    if min(Counter(shapes).values()) < 2 or min(Counter(timbres).values()) < 2:
        return {}
    return {"shape": shapes, "timbre": timbres}


def best_accuracy(target: Sequence[Hashable], known: Sequence[Hashable]) -> float:
    """The accuracy of the best guess of `target` from `known`, one value of each per (equally likely) class.

    Knowing nothing (the same value everywhere) gives the chance level.
    """
    right = sum(
        max(Counter(t for t, k in zip(target, known, strict=True) if k == value).values()) for value in set(known)
    )
    return right / len(target)


def reference_levels(class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """What can be reached without looking, and by a part that perceives its own attribute perfectly and no other.

    Args:
      class_names: If of the form "<shape>_<timbre>", images tell the shape and sounds the timbre; for other
        names nothing is known of what a modality can tell, and only the chance level is given.

    Returns:
      target ("class", and "shape" and "timbre" where the names hold them) → {"chance", "visual", "audio", "both"},
      accuracies 0..1 for equally frequent classes. The parts' ceilings hold for features that have seen one
      modality only: not for the multimodal layer.
    """
    found = attributes(class_names)
    targets = {"class": tuple(class_names), **found}
    nothing = [0] * len(class_names)
    levels = {name: {"chance": best_accuracy(target, nothing)} for name, target in targets.items()}
    if found:
        knowledge = {"visual": found["shape"], "audio": found["timbre"], "both": tuple(class_names)}
        for name, target in targets.items():
            levels[name] |= {part: best_accuracy(target, known) for part, known in knowledge.items()}
    return levels
