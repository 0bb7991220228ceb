"""AdamW with AMSGrad, linear warm-up and linear decay (paper, section 4), weight decay on weights only."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def make_optimizer(optimizer_config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Builds gradient clipping → AMSGrad → decoupled weight decay → learning rate.

    With m and v the running means of the gradient and its square, at update t:

        v_max = max(v_max, v),  parameter -= rate(t) * (m / (1 - b1^t) / sqrt(v_max / (1 - b2^t)) + decay * parameter)

    The maximum is taken before the bias correction, as PyTorch does. Taken after it, the first gradients, whose
    corrected v is not damped, would set the step size for the rest of the run.

    Args:
      optimizer_config: `learning_rate` (peak), `warmup_fraction`, `b1`, `b2`, `eps`, `weight_decay`, `grad_clip`
        (largest global norm of the gradient).
      total_steps: length of the schedule.
    """
    c = optimizer_config
    return optax.chain(
        optax.clip_by_global_norm(c.grad_clip),
        optax.scale_by_amsgrad(c.b1, c.b2, c.eps, bias_correction_nu=False),
        optax.scale_by_schedule(lambda count: jnp.sqrt(1 - c.b2 ** (count + 1.0))),
        optax.add_decayed_weights(c.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(learning_rate_schedule(c, total_steps)),
    )


def learning_rate_schedule(optimizer_config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Rises linearly to `learning_rate` over the first `warmup_fraction` of the run, then falls linearly to 0."""
    peak = optimizer_config.learning_rate
    warmup = max(1, round(optimizer_config.warmup_fraction * total_steps))
    # Update 0 already moves: the rate at update t is peak * (t + 1) / warmup.
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    fall = optax.linear_schedule(peak, 0.0, max(1, total_steps - warmup + 1))
    return optax.join_schedules([rise, fall], [warmup - 1])


def decay_mask(params: Any) -> Any:
    """Marks what weight decay applies to: all but biases and the scales of BatchNorm and LayerNorm."""

    def decays(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> bool:
        name = path[-1].key
        return not (name.endswith("bias") or name == "scale")

    return jax.tree_util.tree_map_with_path(decays, params)
