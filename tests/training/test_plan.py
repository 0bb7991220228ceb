"""What the plan says of a data set's splits."""

from types import SimpleNamespace

import pytest

from avshare_jax.data.dataset import Dataset, DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.mixtures import Mixture
from avshare_jax.training import plan
from configs.pretrain import get_config


def dataset(name="mine", **counts):
    splits = {split: SimpleNamespace(num_examples=count) for split, count in counts.items()}
    builder = SimpleNamespace(info=SimpleNamespace(splits=splits))
    return Dataset(name, f"data/{name}/1.0.0", FrontEnd(), (), False, {}, builder)


def mixture(**counts):
    return Mixture((dataset(**counts),))


def test_sizes_and_epochs():
    described = plan.describe_dataset(get_config("demo"), mixture(train=1_440, test=7))
    assert described == "  data set    data/mine/1.0.0: videos 7 in test, 1,440 in train; 10 epochs of train"


def test_missing_training_split_is_an_error_that_names_those_there_are():
    with pytest.raises(DatasetError, match="no split 'train'; it has test, val.*config.data.train_split"):
        plan.describe_dataset(get_config("demo"), mixture(val=3, test=7))


def test_missing_evaluation_split_is_said():
    described = plan.describe_dataset(get_config("demo"), mixture(train=1_440))
    assert "no split 'test', which eval.py would need (config.data.eval_split)" in described


def test_each_data_set_of_a_mixture_has_its_share():
    config = get_config("demo")  # 900 steps of 16 videos
    several = (dataset("speech", train=2_400), dataset("music", train=800, test=5))
    lines = plan.describe_dataset(config, Mixture(several)).splitlines()
    assert lines[0] == "  data set    data/speech/1.0.0: videos 2,400 in train; 0.75 of each batch, 4.5 epochs of train"
    assert lines[1].endswith("videos 5 in test, 800 in train; 0.25 of each batch, 4.5 epochs of train")
    assert "speech has no split 'test'" in lines[2]  # evaluation takes the first
    weighted = plan.describe_dataset(config, Mixture(several, (1.0, 4.0)))
    assert "0.2 of each batch, 1.2 epochs" in weighted and "0.8 of each batch, 14.4 epochs" in weighted
