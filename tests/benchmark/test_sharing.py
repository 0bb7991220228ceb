"""Factorized, unshared and fully shared Transformers at a microscopic size: their sizes, and that times are there."""

import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.benchmark import sharing
from avshare_jax.benchmark.__main__ import main
from configs.pretrain import get_config


def test_sizes_and_times():
    config = get_config("batch_size=2,data.num_clips=3")
    config.model.update(hidden=16, mlp=32, heads=2, layers=2, rank=2, positions=4)
    results = sharing.measure_config(config, repeats=2)
    configured, unshared, shared = (results[name] for name in ("as configured", *sharing.FULL_WEIGHTS))
    assert unshared["parameters"] == models.unshared_transformer_parameters(config.model)
    assert shared["parameters"] * 3 * config.model.layers == unshared["parameters"]
    assert configured["parameters"] < shared["parameters"]
    for figures in (configured, unshared, shared):
        assert figures["MB of parameters"] == pytest.approx(4e-6 * figures["parameters"])
        # AMSGrad's three means, and counts.
        assert figures["MB of the optimizer's state"] == pytest.approx(3 * figures["MB of parameters"], abs=1e-4)
        assert all(np.isfinite(value) and value > 0 for value in figures.values())
    ratios = results["as configured / everything shared"]
    assert ratios.keys() == configured.keys()
    assert ratios["parameters"] == configured["parameters"] / shared["parameters"]


def test_full_weights_get_a_sentence():
    with pytest.raises(SystemExit, match="choose a config that has a rank"):
        main(["sharing", "--config=configs/pretrain.py:layers_share"])
