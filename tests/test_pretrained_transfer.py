"""Pretraining without labels is worth what it is for: fine-tuned with one label of each class, it beats random weights.

At reduced size, on films in which a color and a pitch always go together (tests/data/sources/paired.py); fine-tuning is
the protocol of Kinetics-Sounds, with image and sound, prepared from the publisher's format.
"""

import numpy as np
import pytest

from avshare_jax.evaluation.runs import evaluate_run
from avshare_jax.settings import load_config_file
from avshare_jax.training.finetune import finetune
from avshare_jax.training.run import pretrain
from tests import transfer
from tests.data.sources import paired

pytestmark = [pytest.mark.slow, pytest.mark.learning]

STEPS, CLIPS, SEEDS = 2_000, 4, (0, 1)


def pretraining_config(data):
    """configs/pretrain.py:demo at reduced size, on films without labels."""
    config = load_config_file("configs/pretrain.py:demo")
    del config["demo"]
    transfer.reduce_data(config, "unlabeled", data, CLIPS, seconds=1.0)
    transfer.reduce_model(config)
    options = {"batch_size": 16, "total_steps": STEPS, "log_every": 100, "checkpoint_every": STEPS}
    rates = {"optimizer.learning_rate": 5e-3, "objectives.num_negatives": 16}
    config.update_from_flattened_dict(options | rates)
    return config


def finetuning_config(data, init_from, seed):
    """configs/finetune_kinetics_sounds.py at reduced size, on four videos with a label each."""
    options = {"batch_size": 4, "total_steps": 40, "seed": seed, "init_from": init_from}
    rates = {"optimizer.learning_rate": 0.01, "optimizer.network_learning_rate": 0.001}
    config = transfer.reduced("configs/finetune_kinetics_sounds.py", "kinetics_sounds", data, **options, **rates)
    transfer.reduce_data(config, "kinetics_sounds", data, CLIPS, seconds=1.0)
    return config


@pytest.fixture(scope="module")
def top1(tmp_path_factory):
    """Top-1 of 64 test videos by where the network started and by modality, the mean of two seeds."""
    folder = tmp_path_factory.mktemp("pretrained_transfer")
    data, run = folder / "data", folder / "pretraining"
    transfer.prepare(paired.make_folder(folder / "films", 240), "unlabeled", data)
    transfer.prepare(paired.make_kinetics_sounds(folder / "tree", train=1, val=16), "kinetics_sounds", data)
    pretrain(pretraining_config(data), run)
    found = {}
    for name, init_from in {"pretrained": str(run), "random": None}.items():
        tested = []
        for seed in SEEDS:
            workdir = folder / f"{name}_{seed}"
            finetune(finetuning_config(data, init_from, seed), workdir)
            tested.append(evaluate_run(transfer.evaluation_config(), workdir)["measures"])
        found[name] = {choice: np.mean([one[choice]["top1"] for one in tested]) for choice in tested[0]}
    print(found)
    return found


def test_pretraining_helps_where_labels_are_few(top1):
    """Of four classes; image alone and sound alone are what the same networks tell of videos without the other."""
    assert top1["pretrained"]["both"] >= max(0.8, top1["random"]["both"] + 0.05)
    assert top1["pretrained"]["audio"] >= top1["random"]["audio"] + 0.1
