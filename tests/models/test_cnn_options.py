"""What training may do to the CNNs: BatchNorm by groups, clips in chunks, rematerialization; against plain runs."""

from functools import cache

import jax
import numpy as np
import pytest

from avshare_jax import models
from avshare_jax.models.convolution import REMATERIALIZATION, BatchNorm, Counted
from avshare_jax.models.placement import fold_clips, join_axis, split_axis, unfold_clips

NETWORKS = ("visual", "audio")


@pytest.fixture(scope="module")
def batch(micro_batch):
    """Four videos of three clips."""
    return {name: np.concatenate([x, x[1:2, ::-1]]) for name, x in micro_batch.items()}


@pytest.fixture(scope="module")
def variables(micro_model, random_variables, batch):
    network = models.build(micro_model())
    return random_variables(lambda key: network.init(key, batch, train=False))


@pytest.fixture(scope="module")
def embed(micro_model, variables):
    """Returns a function to embeddings, running statistics and the gradient of a weighted sum of the embeddings."""

    @cache
    def compiled(options):
        network = models.AVBert(micro_model(), options)

        def weighted_sum(params, batch, weights):
            outputs, updates = network.apply(
                variables | {"params": params}, batch, train=True, method="embed", mutable=["batch_stats"]
            )
            embeddings = {name: outputs[f"{name}_embeddings"] for name in NETWORKS}
            total = sum((embeddings[name] * weights[name]).sum() for name in NETWORKS)
            return total, (embeddings, updates["batch_stats"])

        return jax.jit(jax.grad(weighted_sum, has_aux=True))

    def embed(batch, weights, **options):
        step = compiled(models.CNNOptions(**options))
        gradient, (embeddings, batch_stats) = jax.tree.map(np.asarray, step(variables["params"], batch, weights))
        return embeddings, batch_stats, gradient

    return embed


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(3)
    return {name: random.normal(size=(4, 3, 8)).astype(np.float32) for name in NETWORKS}


def assert_close(actual, expected, tolerance=1e-3):
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance), actual, expected
    )


def take(arrays, index):
    return {name: x[index] for name, x in arrays.items()}


def mean_of(trees):
    return jax.tree.map(lambda *leaves: np.mean(leaves, 0), *trees)


def sum_of(trees):
    return jax.tree.map(lambda *leaves: np.sum(leaves, 0), *trees)


@pytest.mark.parametrize("present", [None, np.array([1, 1, 0, 1, 0, 0], bool)])
def test_grouped_batch_norm_normalizes_each_group_by_itself(present):
    random = np.random.default_rng(0)
    x = random.normal(3, 2, size=(6, 4, 5, 3)).astype(np.float32)
    scale, bias, running_mean, running_variance = random.uniform(0.5, 2, (4, 3)).astype(np.float32)
    variables = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": running_mean, "var": running_variance},
    }
    # The second group has no present clip, so that all of it counts.
    groups = [[0, 2, 3], [4, 5], [1]]
    members = np.array([[clip in group for clip in range(6)] for group in groups])
    expected, means, variances = np.empty_like(x), [], []
    for group in groups:
        counted = [clip for clip in group if present is None or present[clip]] or group
        means.append(x[counted].astype(np.float64).mean((0, 1, 2)))
        variances.append(x[counted].astype(np.float64).var((0, 1, 2)))
        expected[group] = (x[group] - means[-1]) / np.sqrt(variances[-1] + 1e-5) * scale + bias
    norm, counted = BatchNorm(True, np.float32), Counted(present, members)
    normalized, updates = norm.apply(variables, x, counted, mutable=["batch_stats"])
    np.testing.assert_allclose(normalized, expected, rtol=1e-4, atol=1e-4)
    running = updates["batch_stats"]
    np.testing.assert_allclose(running["mean"], 0.9 * running_mean + 0.1 * np.mean(means, 0), rtol=1e-4)
    np.testing.assert_allclose(running["var"], 0.9 * running_variance + 0.1 * np.mean(variances, 0), rtol=1e-4)


def test_one_group_is_no_groups():
    x = np.random.default_rng(1).normal(2, 3, size=(4, 5, 3)).astype(np.float32)
    norm = BatchNorm(True, np.float32)
    variables = norm.init(jax.random.key(0), x, Counted())
    expected = norm.apply(variables, x, Counted(), mutable=["batch_stats"])
    grouped = norm.apply(variables, x, Counted(None, np.ones((1, 4), bool)), mutable=["batch_stats"])
    assert_close(grouped, expected, 1e-5)


def test_groups_are_consecutive_parts_of_the_batch(embed, batch, weights):
    embeddings, batch_stats, gradient = embed(batch, weights, norm_groups=2)
    halves = np.s_[:2], np.s_[2:]
    parts = [embed(take(batch, rows), take(weights, rows)) for rows in halves]
    assert_close(embeddings, jax.tree.map(lambda *x: np.concatenate(x), *(part[0] for part in parts)))
    assert_close(batch_stats, mean_of([part[1] for part in parts]))
    assert_close(gradient, sum_of([part[2] for part in parts]))
    whole, *_ = embed(batch, weights)
    assert np.abs(whole["visual"] - embeddings["visual"]).max() > 0.01


def test_chunks_are_clips_by_themselves(embed, batch, weights):
    embeddings, batch_stats, gradient = embed(batch, weights, clip_chunks=3)
    parts = [embed(take(batch, np.s_[:, [clip]]), take(weights, np.s_[:, [clip]])) for clip in range(3)]
    assert_close(embeddings, jax.tree.map(lambda *x: np.concatenate(x, 1), *(part[0] for part in parts)))
    assert_close(batch_stats, mean_of([part[1] for part in parts]))
    assert_close(gradient, sum_of([part[2] for part in parts]))


@pytest.mark.parametrize("remat", REMATERIALIZATION[1:])
def test_rematerialization_changes_nothing(embed, batch, weights, remat):
    assert_close(embed(batch, weights, remat=remat), embed(batch, weights), 1e-4)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"norm_groups": 3}, "4 videos cannot be divided into 3 equal BatchNorm groups"),
        ({"clip_chunks": 2}, "3 clips cannot be divided into 2 equal chunks"),
        ({"remat": "layers"}, "one of none, convolutions, blocks, stages, and not 'layers'"),
    ],
)
def test_options_that_do_not_fit_are_sentences(embed, batch, weights, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        embed(batch, weights, **options)


def test_each_way_keeps_less_for_the_backward_pass(micro_model, batch):
    """Counts the arrays that differentiation keeps; nothing is computed."""

    config = micro_model()
    for cnn in (config.visual_cnn, config.audio_cnn):
        cnn.update(width=2, stage_sizes=(2, 2))
    initial = jax.eval_shape(lambda: models.build(config).init(jax.random.key(0), batch, train=False))

    def kept(**options):
        network = models.AVBert(config, models.CNNOptions(**options))

        def differentiate(variables):
            def embeddings(params):
                return network.apply(
                    variables | {"params": params}, batch, train=True, method="embed", mutable=["batch_stats"]
                )

            return jax.vjp(embeddings, variables["params"])[1]

        return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(differentiate, initial)))

    sizes = [kept(remat=remat) for remat in REMATERIALIZATION]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert kept(clip_chunks=3) < sizes[-1]


def test_folding_and_dealing_are_undone():
    x = np.arange(4 * 6 * 2).reshape(4, 6, 2)
    np.testing.assert_array_equal(unfold_clips(fold_clips(x), 4), x)
    parts = split_axis(x, 1, 3)
    np.testing.assert_array_equal(parts[1], x[:, 1::3])
    np.testing.assert_array_equal(join_axis(parts, 1), x)
