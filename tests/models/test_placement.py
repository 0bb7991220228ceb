"""Which libraries of a CPU compute the network, and which platform it is traced for."""

import jax
import jax.numpy as jnp

from avshare_jax.models.placement import compiler_options, platform, written_for


def test_matrix_products_are_left_to_eigen_on_cpus_and_other_platforms_have_no_options():
    square = jax.ShapeDtypeStruct((256, 256), jnp.float32)
    options = compiler_options("cpu")
    program = jax.jit(lambda x: x @ x, compiler_options=options).lower(square).compile().as_text()
    assert " dot(" in program and "ynn" not in program
    assert compiler_options("tpu") is None and compiler_options("gpu") is None


def test_what_the_network_is_written_for_ends_with_the_context():
    with written_for("tpu"):
        assert platform() == "tpu"
        with written_for("gpu"):
            assert platform() == "gpu"
        assert platform() == "tpu"
    assert platform() == jax.default_backend()
