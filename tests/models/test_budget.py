"""The paper's parameter counts, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from avshare_jax import models, sizes


@pytest.fixture(scope="module")
def paper():
    """Config and parameter shapes of the paper's network with the released checkpoint's 22 positions."""
    config = sizes.base()
    config.positions = 22
    network = models.build(config)
    batch = {
        "frames": jax.ShapeDtypeStruct((1, 21, 16, 112, 112, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((1, 21, 128, 80), jnp.float32),
    }
    shapes = jax.eval_shape(lambda key, batch: network.init(key, batch, train=False), jax.random.key(0), batch)
    return config, shapes["params"]


def test_paper_has_its_total(paper):
    assert sum(leaf.size for leaf in jax.tree.leaves(paper[1])) == 43_778_080


def test_each_part_of_the_paper_has_its_count(paper):
    counts = {part: count.total for part, count in models.parameter_counts(paper[1]).items()}
    assert counts["visual_cnn"] == 31_672_128
    assert counts["visual_projection"] + counts["visual_norm"] == 1_575_168
    assert counts["audio_cnn"] == 5_839_840
    assert counts["audio_projection"] + counts["audio_norm"] == 788_736
    assert counts["visual_bos"] + counts["audio_bos"] == 1_536
    assert counts["visual_embedding"] == counts["audio_embedding"] == 18_432
    assert counts["multimodal_embedding"] == 19_968
    assert counts["transformer"] == 3_843_840
    assert sum(counts.values()) == 43_778_080


def test_shared_and_private_parts(paper):
    counts = models.parameter_counts(paper[1])
    inputs, outputs, rank = (5 * 768 + 3072), (5 * 768 + 3072), 128  # Summed over a layer's six weights.
    assert counts["transformer"].shared == outputs * rank + outputs + 2 * 2 * 768
    assert counts["transformer"].private == 3 * (inputs * rank + 6 * rank**2)
    assert counts["transformer"].other == 0
    assert all(count.shared == count.private == 0 for part, count in counts.items() if part != "transformer")


def test_arrays_are_counted_like_shapes(paper):
    arrays = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), paper[1])
    assert models.parameter_counts(arrays) == models.parameter_counts(paper[1])


def test_paper_unshared(paper):
    assert models.unshared_transformer_parameters(paper[0]) == 127_581_696


@pytest.mark.parametrize(
    ("layer_sharing", "transformer_sharing", "rank", "expected"),
    [
        ("none", "none", None, 127_581_696),
        ("none", "all", None, 42_527_232),
        ("all", "none", None, 21_263_616),
        ("all", "all", None, 7_087_872),
        ("none", "factorized", 128, 23_063_040),
        ("all", "none", 128, 5_633_280),
        ("all", "factorized", 128, 3_843_840),
        ("factorized", "factorized", 128, 18_589_440),
    ],
)
def test_every_sharing_scheme_has_its_count(layer_sharing, transformer_sharing, rank, expected):
    """Seven of the paper's network, and layers that share U only: 894,720 shared, 983,040 for each of 18 layers."""
    config = sizes.base()
    config.update(layer_sharing=layer_sharing, transformer_sharing=transformer_sharing, rank=rank)
    network = models.build(config)
    batch = {
        "frames": jax.ShapeDtypeStruct((1, 1, 1, 16, 16, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((1, 1, 16, 16), jnp.float32),
    }
    params = jax.eval_shape(lambda key, batch: network.init(key, batch, train=False), jax.random.key(0), batch)
    count = models.parameter_counts(params["params"])["transformer"]
    assert count.total == count.shared + count.private == expected


@pytest.mark.parametrize(("fusion", "expected"), [("early", 894_720 + 983_040), ("late", 894_720 + 2 * 983_040)])
def test_fusion_decides_how_many_transformers_there_are(fusion, expected):
    config = sizes.base()
    config.fusion = fusion
    batch = {
        "frames": jax.ShapeDtypeStruct((1, 1, 1, 16, 16, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((1, 1, 16, 16), jnp.float32),
    }
    network = models.build(config)
    params = jax.eval_shape(lambda key, batch: network.init(key, batch, train=False), jax.random.key(0), batch)
    assert models.parameter_counts(params["params"])["transformer"].total == expected


class PlainLayer(nn.Module):
    """A BERT layer of the field's standard parts."""

    hidden: int
    mlp: int
    heads: int

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(self.heads)(x))
        return nn.LayerNorm()(x + nn.Dense(self.hidden)(nn.gelu(nn.Dense(self.mlp)(x))))


@pytest.mark.parametrize("size", [sizes.base, sizes.tiny])
def test_unshared_is_three_stacks_of_plain_layers(size):
    config = size()
    layer = PlainLayer(config.hidden, config.mlp, config.heads)
    params = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2, config.hidden)))
    expected = 3 * config.layers * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert models.unshared_transformer_parameters(config) == expected
