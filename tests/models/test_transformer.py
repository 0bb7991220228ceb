"""The shared encoder and the token embeddings against float64 references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special

from avshare_jax.models.transformer import TRANSFORMERS, SharedTransformer, TokenEmbedding

HIDDEN, MLP, HEADS, LAYERS, RANK = 8, 12, 2, 2, 4
NAMES = TRANSFORMERS["mid"]


def encoder(**overrides):
    sizes = {"hidden": HIDDEN, "mlp": MLP, "heads": HEADS, "layers": LAYERS, "rank": RANK, "dropout": 0.0}
    scheme = {"layer_sharing": "all", "transformer_sharing": "factorized", "orthogonal_map": "expm"}
    return SharedTransformer(NAMES, **sizes | scheme | {"dtype": jnp.float32} | overrides)


@pytest.fixture(scope="module")
def params(random_variables):
    return random_variables(lambda key: encoder().init(key, jnp.zeros((1, 2, HIDDEN)), "visual", False))["params"]


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(1).normal(size=(2, 5, HIDDEN)).astype(np.float32)


@pytest.fixture(scope="module")
def encode():
    return jax.jit(
        lambda params, tokens: {name: encoder().apply({"params": params}, tokens, name, train=False) for name in NAMES}
    )


@pytest.fixture(scope="module")
def reference(numpy_layer_norm):
    """Returns a function that computes a post-norm BERT encoder with factorized weights, head by head."""

    def reference(params, x, name, layers=LAYERS, attention=True):
        index = NAMES.index(name)

        def linear(part, x):
            factors = {key: np.asarray(value, np.float64)[0] for key, value in params[part].items()}
            upper = np.triu(factors["a"][index], 1)
            hidden = x @ factors["v"][index]
            hidden /= np.linalg.norm(hidden, axis=-1, keepdims=True)
            return hidden @ scipy.linalg.expm(upper - upper.T) @ factors["u"][0] + factors["bias"][0]

        def norm(part, x):
            return numpy_layer_norm(x, {key: value[0, 0] for key, value in params[part].items()})

        def attend(x):
            heads = []
            parts = (np.split(linear(part, x), HEADS, axis=-1) for part in ("query", "key", "value"))
            for query, key, value in zip(*parts, strict=True):
                logits = query @ key.swapaxes(1, 2) / np.sqrt(HIDDEN / HEADS)
                heads.append(scipy.special.softmax(logits, axis=-1) @ value)
            return linear("attention_output", np.concatenate(heads, axis=-1))

        x = x.astype(np.float64)
        for _ in range(layers):
            x = norm("attention_norm", x + (attend(x) if attention else 0))
            inner = linear("mlp_in", x)
            gelu = inner * 0.5 * (1 + scipy.special.erf(inner / np.sqrt(2)))
            x = norm("output_norm", x + linear("mlp_out", gelu))
        return x

    return reference


def test_encoder_matches_the_reference(encode, params, tokens, reference):
    outputs = encode(params, tokens)
    for name in NAMES:
        np.testing.assert_allclose(outputs[name], reference(params, tokens, name), rtol=1e-3, atol=1e-4)


def test_transformers_differ_by_their_private_parts_only(encode, params, tokens):
    private = {path[-1].key for path, leaf in jax.tree_util.tree_leaves_with_path(params) if leaf.shape[1] == 3}
    assert private == {"v", "a"}
    same = jax.tree.map(lambda leaf: leaf[:, [0, 0, 2]] if leaf.shape[1] == 3 else leaf, params)
    outputs, alike = encode(params, tokens), encode(same, tokens)
    np.testing.assert_array_equal(alike["audio"], alike["visual"])
    np.testing.assert_array_equal(alike["visual"], outputs["visual"])
    assert np.abs(outputs["audio"] - outputs["visual"]).max() > 0.1


def test_encoder_has_no_sense_of_order(encode, params, tokens):
    order = np.array([3, 0, 4, 1, 2])
    outputs, permuted = encode(params, tokens), encode(params, tokens[:, order])
    for name in NAMES:
        np.testing.assert_allclose(permuted[name], outputs[name][:, order], rtol=1e-3, atol=1e-4)


def test_dropout_takes_attention_and_leaves_the_mlp(params, tokens, reference):
    @jax.jit
    def train(params):
        module = encoder(dropout=1.0, layers=1)
        return module.apply({"params": params}, tokens, "audio", train=True, rngs={"dropout": jax.random.key(0)})

    # At rate 1 only what is never dropped is left: x = LN(x), then x = LN(x + MLP(x)).
    expected = reference(params, tokens, "audio", layers=1, attention=False)
    np.testing.assert_allclose(train(params), expected, rtol=1e-3, atol=1e-4)


def test_dropout_is_drawn_from_the_key(encode, params, tokens):
    @jax.jit
    def train(key):
        return encoder(dropout=0.3).apply({"params": params}, tokens, "visual", train=True, rngs={"dropout": key})

    first, again, other = (train(jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-2
    assert all(np.isfinite(drawn).all() for drawn in (first, other))
    assert np.abs(first - encode(params, tokens)["visual"]).max() > 1e-2


def test_hidden_tokens_are_as_if_they_were_not_there(params, tokens):
    visible = np.array([[True, True, False, True, False], [True] * 5])
    hidden = jax.jit(lambda tokens: encoder().apply({"params": params}, tokens, "audio", False, visible))(tokens)
    shorter = encoder().apply({"params": params}, tokens[:1, visible[0]], "audio", False)
    np.testing.assert_allclose(hidden[:1, visible[0]], shorter, rtol=1e-3, atol=1e-4)
    whole = encoder().apply({"params": params}, tokens[1:], "audio", False)
    np.testing.assert_allclose(hidden[1:], whole, rtol=1e-3, atol=1e-4)


def test_layers_with_weights_of_their_own_differ(random_variables, tokens, reference):
    """Two layers that share nothing: the first layer's weights, then the second's."""
    module = encoder(layer_sharing="none")
    params = random_variables(lambda key: module.init(key, tokens, "visual", False))["params"]
    output = jax.jit(lambda params: module.apply({"params": params}, tokens, "audio", False))(params)
    expected = tokens
    for layer in range(LAYERS):
        expected = reference(jax.tree.map(lambda leaf: leaf[layer : layer + 1], params), expected, "audio", layers=1)  # noqa: B023
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)


def test_all_sigmas_of_a_step_are_made_in_one_call(tokens):
    """However many layers, uses and weights: one loop of squarings in what is compiled."""

    def sizes(layers):
        module = encoder(layers=layers, layer_sharing="factorized")
        return jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, "visual", False)["params"])

    for layers in (1, 3):
        module = encoder(layers=layers, layer_sharing="factorized")

        def all_transformers(module):
            return [module(tokens, name, False) for name in NAMES]

        step = jax.jit(lambda p, module=module: module.apply({"params": p}, method=all_transformers))
        assert step.lower(sizes(layers)).compile().as_text().count(" while(") == 1


def test_schemes_that_do_not_go_together_are_a_sentence(tokens):
    with pytest.raises(ValueError, match="Only a factorized network"):
        encoder(rank=None).init(jax.random.key(0), tokens, "visual", False)


def embed(params, sequences, positions=6):
    modalities = ("visual", "audio")
    module = TokenEmbedding(positions, modalities if len(sequences) > 1 else (), 0.0, jnp.float32)
    sequences = dict(zip(modalities, sequences, strict=False))
    return np.asarray(module.apply({"params": params}, sequences, train=False))


@pytest.fixture(scope="module")
def embedding(random_variables):
    module = TokenEmbedding(6, ("visual", "audio"), 0.0, jnp.float32)
    tokens = dict.fromkeys(("visual", "audio"), jnp.zeros((1, 4, HIDDEN)))
    return random_variables(lambda key: module.init(key, tokens, False))["params"]


def test_embedding_adds_position_and_modality(embedding, numpy_layer_norm):
    visual, audio = np.random.default_rng(3).normal(size=(2, 2, 4, HIDDEN)).astype(np.float32)
    expected = np.concatenate(
        [
            visual + embedding["position"][:4] + embedding["modality"][0],
            audio + embedding["position"][:4] + embedding["modality"][1],
        ],
        axis=1,
    )
    expected = numpy_layer_norm(expected, embedding["norm"])
    np.testing.assert_allclose(embed(embedding, (visual, audio)), expected, rtol=1e-4, atol=1e-5)
    unimodal = {name: embedding[name] for name in ("position", "norm")}
    expected = numpy_layer_norm(visual + embedding["position"][:4], embedding["norm"])
    np.testing.assert_allclose(embed(unimodal, (visual,)), expected, rtol=1e-4, atol=1e-5)


def test_synchronous_clips_share_a_position(embedding):
    zeros = np.zeros((1, 4, HIDDEN), np.float32)
    before = embed(embedding, (zeros, zeros))
    moved = embedding | {"position": embedding["position"].copy()}
    moved["position"][2] += np.arange(HIDDEN)
    changed = np.abs(embed(moved, (zeros, zeros)) - before).max(axis=(0, 2)) > 1e-3
    np.testing.assert_array_equal(np.flatnonzero(changed), [2, 6])
    alike = embed(embedding | {"modality": np.zeros((2, HIDDEN), np.float32)}, (zeros, zeros))
    np.testing.assert_array_equal(alike[:, :4], alike[:, 4:])
