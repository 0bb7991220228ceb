"""What a run checks before it starts."""

import shutil

import pytest
from ml_collections import ConfigDict

from avshare_jax.data.dataset import DatasetError
from avshare_jax.training.run import open_or_make_dataset
from configs.pretrain import get_config


def test_demo_of_other_numbers_gets_a_sentence(tmp_path):
    config = get_config("demo")
    config.data.data_dir = str(tmp_path / "data")
    config.demo = ConfigDict({"videos_dir": str(tmp_path / "videos"), "num_train": 2, "num_test": 1, "seed": 0})
    assert open_or_make_dataset(config).num_videos("train") == 2
    config.demo.seed = 1
    with pytest.raises(DatasetError, match="demo was made with .*seed=0, and not with .*seed=1: delete it"):
        open_or_make_dataset(config)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(DatasetError, match="videos was made with .*seed=0, and not with .*seed=1: delete it"):
        open_or_make_dataset(config)
    shutil.rmtree(tmp_path / "data")
    config.demo.seed = 0
    assert open_or_make_dataset(config).num_videos("test") == 1


def test_demo_is_not_rendered_where_its_data_set_cannot_be_written(tmp_path):
    config = get_config("demo")
    config.demo.videos_dir = str(tmp_path / "videos")
    config.data.data_dir = str(tmp_path / "file")
    (tmp_path / "file").touch()
    with pytest.raises(DatasetError, match="cannot be written"):
        open_or_make_dataset(config)
    assert not (tmp_path / "videos").exists()
