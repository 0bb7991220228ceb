"""What a run checks before it starts."""

import contextlib
import shutil

import pytest
from ml_collections import ConfigDict

from avshare_jax.data.dataset import DatasetError
from avshare_jax.settings import UserError
from avshare_jax.training.run import check_objectives, check_ranges, open_or_make_dataset
from configs.pretrain import get_config


@pytest.mark.parametrize("variant", ["", "demo", "demo,long"])
def test_configs_pass(variant):
    check_objectives(get_config(variant))
    check_ranges(get_config(variant))


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("batch_size", 1, "at least 2"),
        ("objectives.num_negatives", 128, "between 1 and 127"),
        ("model.positions", 8, "at least 9"),
        ("objectives.negative_groups", 3, "must divide config.batch_size=16"),
    ],
)
def test_impossible_sizes_get_a_sentence(field, value, advice):
    config = get_config("demo")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=advice):
        check_objectives(config)


@pytest.mark.parametrize(
    ("steps", "changes", "advice"),
    [
        (4, {"num_negatives": 31}, None),
        (4, {"num_negatives": 32}, "between 1 and 31, the other clips of 4 videos of 8"),
        (2, {"num_negatives": 31, "negative_groups": 2}, None),
        (2, {"num_negatives": 32, "negative_groups": 2}, "between 1 and 31, the other clips of 4 videos of 8"),
        (2, {"negative_groups": 16}, "must divide config.batch_size=16 / config.memory.accumulation_steps=2"),
        (16, {"num_negatives": 7}, "accumulation_steps=16 and .* must both be at least 2"),
    ],
)
def test_what_relates_videos_must_fit_the_part_of_a_batch_that_is_taken_at_a_time(steps, changes, advice):
    config = get_config("demo")
    config.memory.accumulation_steps = steps
    config.objectives.update(changes)
    with pytest.raises(UserError, match=advice) if advice else contextlib.nullcontext():
        check_objectives(config)


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("log_every", 0, "config.log_every=0 must be at least 1"),
        ("seed", -1, "config.seed=-1 must be at least 0"),
        ("objectives.mask_fraction", 1.5, "must be between 0 and 1"),
        ("augment.flip", -0.5, "config.augment.flip=-0.5 must be between 0 and 1"),
        ("augment.time_mask", float("nan"), "config.augment.time_mask=nan must be between 0 and 1"),
        ("demo.num_test", 0, "config.demo.num_test=0 must be at least 1"),
        ("model.heads", 5, "config.model.heads=5 must divide config.model.hidden=96"),
        ("model.heads", 0, "config.model.heads=0 must divide"),
        ("model.dtype", "float23", "must be one of float32, bfloat16"),
        ("model.fusion", "middle", "config.model.fusion=middle must be one of early, mid, late"),
        ("model.layer_sharing", "some", "must be one of none, all, factorized"),
        ("objectives.negative_sampling", "simlar", "must be one of .*similar"),
    ],
)
def test_numbers_out_of_range_get_a_sentence(field, value, advice):
    config = get_config("demo")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=advice):
        check_ranges(config)


def test_full_weights_have_no_factors_to_share():
    config = get_config("demo")
    with config.model.ignore_type():
        config.model.rank = None
    with pytest.raises(UserError, match="rank=None"):
        check_ranges(config)


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
