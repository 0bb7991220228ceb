"""Objectives on single clips beside the paper's, by the weights in `config.objectives`; all are 0 in its recipe."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from avshare_jax.models import MODALITIES, Projection
from avshare_jax.objectives.contrast import contrast, next_clips, video_means
from avshare_jax.objectives.decorrelation import sigreg, variance_and_covariance

WEIGHTS = ("contrast_weight", "within_weight", "variance_weight", "covariance_weight", "sigreg_weight")
TEMPERATURES = ("contrast", "within")

Metrics = dict[str, jax.Array]


def projection_of(options: ConfigDict) -> Projection | None:
    """What the network needs for the objectives of `config.objectives`; None where all weights are 0."""
    if not any(options[weight] for weight in WEIGHTS):
        return None
    temperatures = tuple(name for name in TEMPERATURES if options[f"{name}_weight"])
    return Projection(options.projector_hidden, options.projector_width, temperatures)


def clip_objectives(
    options: ConfigDict,
    projections: dict[str, jax.Array],
    log_scales: dict[str, jax.Array],
    present: dict[str, jax.Array],
    key: jax.Array,
) -> tuple[jax.Array, Metrics]:
    """Weighted sum of the objectives on clips, and their metrics.

    Args:
      options: `config.objectives`.
      projections: (B, S, P) float32 by modality.
      log_scales: () float32 by the name of the objective that learns it.
      present: (B,) bool by modality, which videos have it; empty: all have both.
      key: of SIGReg's directions.

    Returns:
      The scalar loss; and scalar metrics of the objectives whose weight is not 0: `contrast/loss` and `contrast/top1`,
      and by modality `within/…_loss`, `within/…_top1`, `decorrelation/…_variance`, `…_covariance` and `…_sigreg`.
    """
    total, metrics = jnp.float32(0.0), {}
    if options.contrast_weight:
        loss, top1 = across(options, projections, log_scales["contrast"], present)
        total += options.contrast_weight * loss
        metrics |= {"contrast/loss": loss, "contrast/top1": top1}
    for name in MODALITIES:
        clips, has_it = projections[name], present.get(name)
        if options.within_weight:
            loss, top1 = contrast(clips, next_clips(clips), log_scales["within"], present=has_it)
            total += options.within_weight * loss
            metrics |= {f"within/{name}_loss": loss, f"within/{name}_top1": top1}
        for term, loss in decorrelation(options, clips, has_it, jax.random.fold_in(key, MODALITIES.index(name))):
            total += options[f"{term}_weight"] * loss
            metrics[f"decorrelation/{name}_{term}"] = loss
    return total, metrics


def across(
    options: ConfigDict, projections: dict[str, jax.Array], log_scale: jax.Array, present: dict[str, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Loss and top-1 of contrast between image and sound, of clips or of whole videos."""
    visual, audio = (projections[name] for name in MODALITIES)
    if options.contrast_unit == "videos":
        visual, audio = video_means(visual), video_means(audio)
    both = present["visual"] & present["audio"] if present else None
    return contrast(visual, audio, log_scale, present=both, same_video_weight=options.contrast_same_video)


def decorrelation(
    options: ConfigDict, clips: jax.Array, present: jax.Array | None, key: jax.Array
) -> list[tuple[str, jax.Array]]:
    """The terms (name, loss) that have a weight, of the projections (B, S, P) of one modality."""
    rows = clips.reshape(-1, clips.shape[-1])
    counted = None if present is None else jnp.repeat(present, clips.shape[1])
    terms = []
    if options.variance_weight or options.covariance_weight:
        terms += zip(("variance", "covariance"), variance_and_covariance(rows, counted), strict=True)
    if options.sigreg_weight:
        terms.append(("sigreg", sigreg(key, rows, options.sigreg_slices, counted)))
    return terms
