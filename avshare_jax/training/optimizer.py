"""AdamW with AMSGrad for pretraining (paper, section 4), Adam with two rates for fine-tuning, and their schedules."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

DECAYS = {
    "linear": lambda peak, steps: optax.linear_schedule(peak, 0.0, steps),
    "cosine": lambda peak, steps: optax.cosine_decay_schedule(peak, steps),
}


def make_optimizer(optimizer_config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Builds gradient clipping → AMSGrad → decoupled weight decay → learning rate.

    With m and v the running means of the gradient and its square, at update t:

        v_max = max(v_max, v),  parameter -= rate(t) * (m / (1 - b1^t) / sqrt(v_max / (1 - b2^t)) + decay * parameter)

    The maximum is taken before the bias correction, as PyTorch does. Taken after it, the first gradients, whose
    corrected v is not damped, would set the step size for the rest of the run.

    Args:
      optimizer_config: `learning_rate` (peak), `warmup_fraction`, `decay`, `b1`, `b2`, `eps`, `weight_decay`,
        `grad_clip` (largest global norm of the gradient).
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


def make_finetuning_optimizer(optimizer_config: ConfigDict, total_steps: int) -> optax.GradientTransformation:
    """Builds weight decay → Adam → learning rate, which the network and its heads have of their own.

    Weight decay adds to the gradient, as PyTorch's Adam has it, of all but BatchNorm's parameters.

    Args:
      optimizer_config: `learning_rate` of the heads and `network_learning_rate` of the network, both at the peak of one
        schedule; `warmup_fraction`, `decay`, `b1`, `b2`, `eps`, `weight_decay`.
      total_steps: length of the schedule.
    """
    c = optimizer_config
    schedule = learning_rate_schedule(c, total_steps)
    ratio = c.network_learning_rate / c.learning_rate
    rates = {"heads": schedule, "network": lambda count: ratio * schedule(count)}

    def parts(params: Any) -> Any:
        return {
            name: jax.tree.map(lambda _, name=name: "network" if name == "network" else "heads", tree)
            for name, tree in params.items()
        }

    return optax.chain(
        optax.add_decayed_weights(c.weight_decay, mask=not_batch_norm),
        optax.scale_by_adam(c.b1, c.b2, c.eps),
        optax.partition({name: optax.scale_by_learning_rate(rate) for name, rate in rates.items()}, parts),
    )


def not_batch_norm(params: Any) -> Any:
    """Marks all parameters but those of BatchNorm, which alone has scales and biases in the CNNs."""

    def decays(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> bool:
        return not re.search(r"_cnn/.*/(scale|bias)$", jax.tree_util.keystr(path, simple=True, separator="/"))

    return jax.tree_util.tree_map_with_path(decays, params)


def learning_rate_schedule(optimizer_config: ConfigDict, total_steps: int) -> optax.Schedule:
    """Rises linearly to `learning_rate` over the first `warmup_fraction` of the run, then falls to 0 by `decay`."""
    peak = optimizer_config.learning_rate
    warmup = max(1, round(optimizer_config.warmup_fraction * total_steps))
    # Update 0 already moves: the rate at update t is peak * (t + 1) / warmup.
    rise = optax.linear_schedule(peak / warmup, peak, warmup - 1)
    fall = DECAYS[optimizer_config.decay](peak, max(1, total_steps - warmup + 1))
    return optax.join_schedules([rise, fall], [warmup - 1])


def decay_mask(params: Any) -> Any:
    """Marks what weight decay applies to: all but biases and the scales of BatchNorm and LayerNorm."""

    def decays(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> bool:
        name = path[-1].key
        return not (name.endswith("bias") or name == "scale")

    return jax.tree_util.tree_map_with_path(decays, params)
