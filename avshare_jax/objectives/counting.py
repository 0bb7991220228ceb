"""Means over what counts: videos may lack a modality, and masked clips may lack negatives."""

import jax
import jax.numpy as jnp


def mean_of_counted(values: jax.Array, counted: jax.Array) -> jax.Array:
    """Mean (scalar) of the values where `counted`, a bool array of the same shape, is true; 0 where nothing counts."""
    return jnp.sum(jnp.where(counted, values, 0.0)) / jnp.maximum(jnp.sum(counted), 1)
