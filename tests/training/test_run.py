"""What a run checks before it starts."""

import pytest

from avshare_jax.settings import UserError
from avshare_jax.training.run import check_objectives
from configs.pretrain import get_config


@pytest.mark.parametrize("variant", ["paper", "demo", "demo,long"])
def test_configs_pass(variant):
    check_objectives(get_config(variant))


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
