"""Linear probe: how well a linear classifier tells the classes apart on frozen features."""

import warnings
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

PARTS = ("visual", "audio", "both")

LayerFeatures = Mapping[str, Mapping[str, np.ndarray]]  # layer → modality → (N, D)


def probe_accuracy(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    standardized_c: Sequence[float],
    whitened_c: Sequence[float],
    max_iterations: int,
) -> float:
    """Accuracy on the test videos of a logistic regression fitted to the training videos.

    Features are standardized, or whitened by principal components, and penalized; the combination is the one that does
    best on every fifth training video after fitting to the other four. What a Transformer's tokens tell of the class
    often lies in directions of small variance, which a penalty on merely standardized features hides.

    Args:
      train_features: (N, D) float.
      train_labels: (N,) int, at least two different ones.
      test_features: (M, D) float.
      test_labels: (M,) int.
      standardized_c: values to choose from for scikit-learn's C, the inverse of the L2 penalty, standardized features.
      whitened_c: the same for whitened features.
      max_iterations: Of L-BFGS. Stopping there is a regularizer too, so it is no cause for a warning.

    Returns:
      The share of test videos whose label is predicted, 0..1.
    """

    def fit(whiten: bool, c: float, rows: np.ndarray | slice) -> Pipeline:
        scaling = [StandardScaler(), PCA(whiten=True)] if whiten else [StandardScaler()]
        classifier = make_pipeline(*scaling, LogisticRegression(C=c, max_iter=max_iterations))
        return classifier.fit(train_features[rows], train_labels[rows])

    candidates = [(False, c) for c in standardized_c] + [(True, c) for c in whitened_c]
    fifth = held_out(len(train_labels))
    # Problems this small take many times longer when several threads share them.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = [fit(*chosen, ~fifth).score(train_features[fifth], train_labels[fifth]) for chosen in candidates]
        classifier = fit(*candidates[int(np.argmax(scores))], slice(None))
        return float(classifier.score(test_features, test_labels))


def held_out(num_videos: int) -> np.ndarray:
    """Marks every fifth training video (N,) bool: the choice of scaling and penalty rests on these."""
    return np.arange(num_videos) % 5 == 4


def obstacle(train_labels: np.ndarray, test_labels: np.ndarray) -> str:
    """Says why no probe can be fitted to labels (N,) and tested on labels (M,); empty where one can."""
    if len(train_labels) < 5 or not len(test_labels):
        return f"{len(train_labels)} training and {len(test_labels)} test videos have a label; 5 and 1 are needed"
    if len(np.unique(train_labels[~held_out(len(train_labels))])) < 2:
        return "the labeled training videos, without every fifth, are all of one class"
    return ""


def probe_layers(
    train: LayerFeatures,
    train_labels: np.ndarray,
    test: LayerFeatures,
    test_labels: np.ndarray,
    *,
    standardized_c: Sequence[float],
    whitened_c: Sequence[float],
    max_iterations: int,
) -> dict[str, dict[str, float]]:
    """Probes every layer on its visual features, its audio features, and both side by side.

    Args:
      train: layer → modality → (N, D) features of the training videos.
      train_labels: (N,) int.
      test: layer → modality → (M, D) features of the test videos.
      test_labels: (M,) int.
      standardized_c: As in `probe_accuracy`.
      whitened_c: As in `probe_accuracy`.
      max_iterations: As in `probe_accuracy`.

    Returns:
      layer → part ("visual", "audio", "both") → accuracy, 0..1.
    """
    return {
        layer: {
            part: probe_accuracy(
                select_part(train[layer], part),
                train_labels,
                select_part(test[layer], part),
                test_labels,
                standardized_c=standardized_c,
                whitened_c=whitened_c,
                max_iterations=max_iterations,
            )
            for part in PARTS
        }
        for layer in train
    }


def select_part(features: Mapping[str, np.ndarray], part: str) -> np.ndarray:
    """One layer's (N, D) features of a modality, or for "both" the two side by side, (N, D_visual + D_audio)."""
    if part == "both":
        return np.concatenate([features["visual"], features["audio"]], axis=1)
    return features[part]


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


def probe_networks(
    options: Mapping[str, float],
    class_names: Sequence[str],
    train: Mapping[str, LayerFeatures],
    train_labels: np.ndarray,
    test: Mapping[str, LayerFeatures],
    test_labels: np.ndarray,
) -> dict[str, Any] | None:
    """Probes all layers of all networks for the class, and for its attributes where class names hold them.

    Args:
      options: `standardized_c`, `whitened_c` and `max_iterations`, as in `probe_accuracy`.
      class_names: of the data set.
      train: name → layer → modality → (N, D) features of the training videos.
      train_labels: (N,) int, -1 where a video has no label; such videos are left out.
      test: name → layer → modality → (M, D) features of the test videos.
      test_labels: (M,) int, the same.

    Returns:
      What `plots.plot_probes` draws, without attributes that are the same in all training videos; None, with a
      printed reason, where there are not enough labels.
    """
    kept_train, kept_test = train_labels >= 0, test_labels >= 0
    train_labels, test_labels = train_labels[kept_train], test_labels[kept_test]
    if reason := obstacle(train_labels, test_labels):
        print(f"  no linear probe: {reason}", flush=True)
        return None
    levels = reference_levels(class_names)
    targets = {"class": tuple(class_names), **attributes(class_names)}
    section: dict[str, Any] = {
        "num_train_videos": int(kept_train.sum()),
        "num_test_videos": int(kept_test.sum()),
        "targets": {},
    }
    for target, values in targets.items():
        codes = np.unique(values, return_inverse=True)[1]
        if obstacle(codes[train_labels], codes[test_labels]):  # Classes that differ may have an attribute in common.
            continue
        section["targets"][target] = {
            "chance": levels[target]["chance"],
            "ceiling": {
                # In the multimodal layer each modality has seen the other.
                layer: {part: levels[target].get("both" if layer == "multimodal" else part) for part in PARTS}
                for layer in next(iter(train.values()))
            },
            **{
                name: probe_layers(
                    select_videos(train[name], kept_train),
                    codes[train_labels],
                    select_videos(test[name], kept_test),
                    codes[test_labels],
                    **options,
                )
                for name in train
            },
        }
    return section


def select_videos(features: LayerFeatures, kept: np.ndarray) -> LayerFeatures:
    """The features of the videos where `kept` (N,) is True."""
    return {layer: {modality: x[kept] for modality, x in parts.items()} for layer, parts in features.items()}
