"""What the plan says of a data set's splits."""

from types import SimpleNamespace

import pytest

from avshare_jax.data.dataset import Dataset, DatasetError
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.training import plan
from configs.pretrain import get_config


def dataset(**counts):
    splits = {split: SimpleNamespace(num_examples=count) for split, count in counts.items()}
    return Dataset("mine", "data/mine/1.0.0", FrontEnd(), (), SimpleNamespace(info=SimpleNamespace(splits=splits)))


def test_sizes_and_epochs():
    described = plan.describe_dataset(get_config("demo"), dataset(train=1_440, test=7))
    assert described == "  data set    data/mine/1.0.0: videos 7 in test, 1,440 in train; 10 epochs of train"


def test_missing_training_split_is_an_error_that_names_those_there_are():
    with pytest.raises(DatasetError, match="no split 'train'; it has test, val.*config.data.train_split"):
        plan.describe_dataset(get_config("demo"), dataset(val=3, test=7))


def test_missing_evaluation_split_is_said():
    described = plan.describe_dataset(get_config("demo"), dataset(train=1_440))
    assert "no split 'test', which eval.py would need (config.data.eval_split)" in described
