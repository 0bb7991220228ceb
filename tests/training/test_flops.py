"""Counts of operations against arithmetic, and against the compiler on the whole network."""

import jax
import jax.numpy as jnp
import pytest

from avshare_jax import models, sizes
from avshare_jax.training.flops import count_flops, places_met
from avshare_jax.training.program import Program


def test_matrix_products_count_as_often_as_they_run():
    def function(x, weights):
        x = jax.lax.scan(lambda carry, weight: (carry @ weight, None), x, weights)[0]
        return jax.lax.cond(x[0, 0] > 0, lambda: (x @ x.T)[0, 0], lambda: 0.0)

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 5), (7, 5, 5))]
    assert count_flops(function, *shapes).total() == 2 * (7 * 3 * 5 * 5 + 3 * 5 * 3)


@pytest.mark.parametrize(
    ("size", "results", "options", "expected"),
    [
        (9, 5, {}, 13),  # Of 5 results with 3 places each, the first and the last look at padding once.
        (11, 5, {"before": 0}, 15),
        (5, 9, {"stride": 1, "spread": 2}, 13),  # The gradient of the first by its input meets the same pairs.
        (11, 5, {"dilation": 2, "before": 2}, 14),
    ],
)
def test_places_of_a_window_that_meet_the_input(size, results, options, expected):
    defaults = {"window": 3, "stride": 2, "before": 1, "spread": 1, "dilation": 1}
    assert places_met(size, results, **(defaults | options)) == expected


@pytest.mark.slow
def test_the_network_within_five_percent_of_the_compiler():
    config = sizes.tiny()
    network = models.build(config)
    batch = {
        "frames": jax.ShapeDtypeStruct((2, 3, 4, 40, 40, 3), jnp.float32),
        "log_mel": jax.ShapeDtypeStruct((2, 3, 32, 32), jnp.float32),
    }
    variables = jax.eval_shape(lambda batch: network.init(jax.random.key(0), batch, train=False), batch)

    def encode(variables, batch):
        return network.apply(variables, batch, train=False)

    counted = count_flops(encode, variables, batch)
    compiled = jax.jit(encode).lower(variables, batch).compile()
    assert counted.total() == pytest.approx(
        sum(flops for _, flops in Program.parse(compiled.as_text()).flops()), rel=0.05
    )
    parts = {part: sum(n for source, n in counted.items() if part in source) for part in ("visual_cnn", "transformer")}
    assert parts["visual_cnn"] > parts["transformer"] > 0


def test_the_papers_visual_cnn_is_as_published():
    cnn = models.build(sizes.base())
    frames = jax.ShapeDtypeStruct((1, 30, 16, 112, 112, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda batch: cnn.init(jax.random.key(0), batch, train=False),
        {"frames": frames, "log_mel": jax.ShapeDtypeStruct((1, 30, 128, 80), jnp.float32)},
    )
    counted = count_flops(lambda v, x: cnn.apply(v, {"frames": x}, train=False), variables, frames)
    visual = sum(flops for source, flops in counted.items() if "visual_cnn" in source)
    # 0.327 T multiply-adds for 480 frames of 112 x 112, of which few are on padding.
    assert visual / 2 == pytest.approx(0.327e12, rel=0.05)
