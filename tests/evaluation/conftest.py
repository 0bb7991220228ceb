"""A made-up evaluation with the demo's class names, for the tests of tables and pictures."""

from functools import partial

import numpy as np
import pytest

from avshare_jax.evaluation import retrieval
from avshare_jax.evaluation.linear_probe import linear_predictions
from avshare_jax.evaluation.neighbors import neighbor_predictions
from avshare_jax.evaluation.overlap import Overlap
from avshare_jax.evaluation.probes import probe_networks

CLASS_NAMES = tuple(
    f"{shape}_{timbre}"
    for shape, timbres in {
        "disc": ("sine", "hollow"),
        "square": ("hollow", "bell"),
        "triangle": ("bell", "buzz"),
        "cross": ("buzz", "sine"),
    }.items()
    for timbre in timbres
)
RESAMPLING = {"resamples": 100, "seed": 0}
PROBES = {
    "linear_probe": partial(linear_predictions, standardized_c=(0.1,), whitened_c=(0.01, 0.1), max_iterations=50),
    "neighbors": partial(neighbor_predictions, k=(5, 20), temperature=0.07),
}


@pytest.fixture
def class_names():
    return CLASS_NAMES


@pytest.fixture
def made_up_scores():
    """Pair scores (40, 40) in which the trained network knows the true pairs roughly."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(2, 40, 40))
    return {"trained": noise[0] + 1.5 * np.eye(40), "random": noise[1]}


@pytest.fixture
def made_up_evaluation(made_up_scores):
    def heldout(top1, pairs, loss):
        heads = ("visual", "audio", "multimodal_visual", "multimodal_audio")
        return {
            **{f"mep/{head}_top1": top1 + 0.02 * place for place, head in enumerate(heads)},
            **{f"mep/{head}_top1_of_batch": top1 / 3 for head in heads},
            "mep/chance": 1 / 33,
            "mep/chance_of_batch": 1 / 128,
            "cpp/bos_accuracy": pairs,
            "cpp/step_accuracy": pairs - 0.03,
            "loss": loss,
            "mep/loss": loss - 1.2,
            "cpp/loss": 1.2,
        }

    random = np.random.default_rng(1)
    train_labels, test_labels = random.integers(0, 8, 64), random.integers(0, 8, 40)
    draw = {
        count: {
            layer: {modality: random.normal(size=(count, 3)) for modality in ("visual", "audio")}
            for layer in ("cnn", "unimodal", "multimodal")
        }
        for count in (64, 40)
    }
    networks = ("trained", "random")
    return {
        "run": "pretrain_demo",
        "step": 900,
        "total_steps": 900,
        "dataset": {
            "name": "demo",
            "num_train_videos": 64,
            "num_test_videos": 40,
            "class_names": list(CLASS_NAMES),
            "num_classes": 8,
            "missing": 3,
            "test": {"split": "test", "records": 40, "without_audio": 0, "without_video": 0, "rejected": 2},
        },
        "overlap": Overlap("demo", 64, 40).to_json(excluded=False),
        "heldout": {
            "num_videos": 32,
            "batch_size": 16,
            "trained": heldout(0.25, 0.75, 11.0),
            "random": heldout(0.03, 0.5, 15.4),
        },
        **{
            name: probe_networks(
                probe,
                CLASS_NAMES,
                dict.fromkeys(networks, draw[64]),
                train_labels,
                dict.fromkeys(networks, draw[40]),
                test_labels,
                **RESAMPLING,
            )
            for name, probe in PROBES.items()
        },
        "retrieval": retrieval.compare_networks(made_up_scores, np.arange(40) % 8, **RESAMPLING),
        "feature_retrieval": {
            layer: retrieval.compare_networks(made_up_scores, np.full(40, -1), **RESAMPLING)
            for layer in ("cnn", "unimodal")
        },
        "parameters": {
            "visual_cnn": 235_000,
            "audio_cnn": 64_000,
            "tokens": 43_000,
            "transformer_shared": 30_000,
            "transformer_private": 82_000,
            "transformer_unshared": 1_006_000,
        },
    }


@pytest.fixture
def late_evaluation(made_up_evaluation):
    """The same of a network without a multimodal Transformer."""

    def without(tree):
        if not isinstance(tree, dict):
            return tree
        return {name: without(inner) for name, inner in tree.items() if "multimodal" not in name}

    return without(made_up_evaluation)
