"""What a run checks before it starts."""

import pytest

from avshare_jax.settings import UserError
from avshare_jax.training.run import check_demo, check_objectives, check_ranges, demo_record
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
        ("objectives.negative_sampling", "simlar", "similar"),
        ("objectives.negative_groups", 3, "must divide config.batch_size=16"),
    ],
)
def test_impossible_sizes_get_a_sentence(field, value, advice):
    config = get_config("demo")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=advice):
        check_objectives(config)


@pytest.mark.parametrize(
    ("field", "value", "advice"),
    [
        ("log_every", 0, "config.log_every=0 must be at least 1"),
        ("seed", -1, "config.seed=-1 must be at least 0"),
        ("objectives.mask_fraction", 1.5, "must be between 0 and 1"),
        ("augment.flip", -0.5, "config.augment.flip=-0.5 must be between 0 and 1"),
        ("model.heads", 5, "config.model.heads=5 must divide config.model.hidden=96"),
        ("model.dtype", "float23", "must be float32 or bfloat16"),
    ],
)
def test_numbers_out_of_range_get_a_sentence(field, value, advice):
    config = get_config("demo")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=advice):
        check_ranges(config)


def test_demo_made_with_other_numbers_gets_a_sentence(tmp_path):
    config = get_config("demo")
    config.demo.videos_dir = str(tmp_path / "videos")
    check_demo(config)  # nothing is there yet
    record, _ = demo_record(config)
    record.write_text('{"seed": 0, "num_train": 10, "num_test": 400}')
    with pytest.raises(UserError, match="'num_train': 10, .* asks for .*'num_train': 1200, .*: delete that folder"):
        check_demo(config)
