"""Frozen features: one vector per video from each layer of the network, averaged over its clips."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from avshare_jax.models.placement import compiler_options
from avshare_jax.settings import UserError

LAYERS = ("cnn", "unimodal", "multimodal")
MODALITIES = ("visual", "audio")

Variables = Mapping[str, Any]
Batch = dict[str, Any]
Encoder = Callable[[Variables, Batch], dict[str, Any]]


@dataclass(frozen=True)
class Features:
    """What one network makes of N videos.

    Attributes:
      pooled: layer → modality → (N, D) float32, the mean over a video's clips (D depends on the layer).
      visual_tokens: (N, S+1, D) float32 outputs of the visual Transformer, BOS first; None if not kept.
      audio_tokens: (N, S+1, D) float32 outputs of the audio Transformer, BOS first; None if not kept.
    """

    pooled: dict[str, dict[str, np.ndarray]]
    visual_tokens: np.ndarray | None = None
    audio_tokens: np.ndarray | None = None


def pool_clips(outputs: Mapping[str, jax.Array]) -> dict[str, dict[str, jax.Array]]:
    """Averages every layer's outputs over the clips of a video, leaving BOS out.

    Args:
      outputs: The network's named outputs: `visual_features` and `audio_features` (B, S, D_cnn),
        `visual_tokens` and `audio_tokens` (B, S+1, D), `multimodal_tokens` (B, 2(S+1), D), which late fusion lacks.

    Returns:
      layer → modality → (B, D) float32. The "visual" part of the multimodal layer are the outputs at the
      visual positions; they have seen the sound as well.
    """
    per_video = outputs["visual_tokens"].shape[1]
    clips = {
        "cnn": {"visual": outputs["visual_features"], "audio": outputs["audio_features"]},
        "unimodal": {"visual": outputs["visual_tokens"][:, 1:], "audio": outputs["audio_tokens"][:, 1:]},
    }
    if "multimodal_tokens" in outputs:
        multimodal = outputs["multimodal_tokens"]
        clips["multimodal"] = {"visual": multimodal[:, 1:per_video], "audio": multimodal[:, per_video + 1 :]}
    return jax.tree.map(lambda x: jnp.mean(x.astype(jnp.float32), axis=1), clips)


def jit_encoder(apply: Callable[[Variables, Batch], Mapping[str, jax.Array]]) -> Encoder:
    """Compiles what `extract` runs, once for all its calls.

    Args:
      apply: (variables, {"frames", "log_mel"}) → the network's named outputs; pure.

    Returns:
      A function of the same arguments that gives the fields of `Features` for a batch.
    """

    @partial(jax.jit, compiler_options=compiler_options())
    def encode(variables: Variables, batch: Batch) -> dict[str, Any]:
        outputs = apply(variables, batch)
        tokens = {name: outputs[name].astype(jnp.float32) for name in ("visual_tokens", "audio_tokens")}
        return {"pooled": pool_clips(outputs), **tokens}

    return encode


def extract(
    encode: Encoder, networks: Mapping[str, Variables], batches: Iterable[Batch], *, keep_tokens: bool = False
) -> tuple[dict[str, Features], np.ndarray, list[str]]:
    """Runs several networks of one architecture over the videos in one pass, so that each is decoded once.

    Args:
      encode: from `jit_encoder`.
      networks: name → variables, all of one structure.
      batches: `frames` (B, S, T, H, W, 3) uint8, `log_mel` (B, S, time, mels), `video_id` (B strings), `valid` (B,),
        which is False for rows that are dropped, and `label` (B,) int, or `labels` (B, C) of zeros and ones where a
        video may have several.
      keep_tokens: whether to keep the unimodal tokens, which retrieval scores.

    Returns:
      The features by network name, the labels, (N,) int32 (-1: none) or (N, C) int32, and the N video ids.

    Raises:
      UserError: no video came, or a network gave values that are not finite.
    """
    rows: dict[str, list[Any]] = {name: [] for name in networks}
    labels: list[np.ndarray] = []
    video_ids: list[str] = []
    for batch in batches:
        valid = np.asarray(batch["valid"])
        inputs = {key: batch[key] for key in ("frames", "log_mel")}
        # All networks are dispatched before the first result is waited for.
        pending = {name: encode(variables, inputs) for name, variables in networks.items()}
        for name, results in pending.items():
            kept = results if keep_tokens else {"pooled": results["pooled"]}
            rows[name].append(jax.tree.map(lambda x, valid=valid: np.asarray(x)[valid], kept))
        labels.append(np.asarray(batch["labels"] if "labels" in batch else batch["label"])[valid])
        video_ids += [video_id for video_id, keep in zip(batch["video_id"], valid, strict=True) if keep]
    if not video_ids:
        raise UserError("There is no video to extract features from: none of the split has both image and sound.")
    features = {name: Features(**jax.tree.map(lambda *x: np.concatenate(x), *rows[name])) for name in networks}
    for name, found in features.items():
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(found.pooled)):
            raise UserError(f"The {name} network gives features that are not finite: this checkpoint has diverged.")
    return features, np.concatenate(labels).astype(np.int32), video_ids
