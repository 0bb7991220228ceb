"""Says what a run will do before it does it: devices, parameters, clips, steps, and where output goes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.data.mixtures import Mixture
from avshare_jax.models.avbert import PRESENCE
from avshare_jax.training.step import Batch, Task


def describe_run(config: ConfigDict, workdir: epath.PathLike, mesh: Mesh, task: Task) -> str:
    """Returns the plan of a pretraining run as lines of text; nothing is computed on a device."""
    return "\n".join([*_run_lines(config, workdir, mesh), *_parameter_lines(config, task)])


def describe_dataset(config: ConfigDict, mixture: Mixture) -> str:
    """Returns the plan's lines about the data, which can only be said once that is there."""
    data = config.data
    lines = []
    for dataset, share in zip(mixture.datasets, mixture.shares(data.train_split), strict=True):
        epochs = config.total_steps * config.batch_size * share / dataset.num_videos(data.train_split)
        sizes = ", ".join(f"{dataset.num_videos(split):,} in {split}" for split in dataset.splits)
        part = f"{share:.3g} of each batch, " if len(mixture.datasets) > 1 else ""
        lines.append(
            f"  data set    {dataset.directory}: videos {sizes}; {part}{epochs:.3g} epochs of {data.train_split}"
        )
    if data.eval_split not in mixture.datasets[0].splits:
        name = "It" if len(mixture.datasets) == 1 else mixture.datasets[0].name
        lines.append(f"  {name} has no split {data.eval_split!r}, which eval.py would need (config.data.eval_split).")
    return "\n".join(lines)


def abstract_batch(config: ConfigDict) -> Batch:
    """Shapes of a global batch, as `data.batches.train_batches` gives it."""
    data = config.data
    clips = (config.batch_size, data.num_clips)
    flags = dict.fromkeys(PRESENCE.values(), jax.ShapeDtypeStruct((config.batch_size,), jnp.bool_))
    return (flags if data.keep_incomplete else {}) | {
        "frames": jax.ShapeDtypeStruct((*clips, data.frames_per_clip, data.crop, data.crop, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((*clips, data.mel_frames, data.frontend.mels), jnp.float32),
    }


def _run_lines(config: ConfigDict, workdir: epath.PathLike, mesh: Mesh) -> Iterator[str]:
    device = jax.devices()[0]
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    data = config.data
    seconds = data.frames_per_clip * data.frame_stride / data.frontend.fps
    yield f"Run {config.name}"
    yield f"  devices     {jax.device_count()} x {device.device_kind} in {jax.process_count()} process(es), mesh {axes}"
    yield f"  steps       {config.total_steps:,}, each of {config.batch_size} videos"
    mel = f"{data.mel_frames} x {data.frontend.mels} log-mel"
    frames = f"{data.frames_per_clip} frames of {data.crop} x {data.crop} pixels"
    yield f"  a video     {data.num_clips} clips of {seconds:g} s: {frames}, {mel}"
    if jax.config.jax_enable_compilation_cache and (compiled := jax.config.jax_compilation_cache_dir):
        yield f"  compiled    programs are kept in {compiled}"
    yield f"  output      {workdir}, a checkpoint every {config.checkpoint_every:,} steps"


def _parameter_lines(config: ConfigDict, task: Task) -> Iterator[str]:
    params = jax.eval_shape(task.init, jax.random.key(0), abstract_batch(config))["params"]
    counts = models.parameter_counts(params["network"])
    yield f"  {'parameters':24}{'shared':>13}{'private':>13}{'total':>13}"
    for part, count in counts.items():
        shared, private = (f"{n:,}" if n else "" for n in (count.shared, count.private))
        yield f"    {part:22}{shared:>13}{private:>13}{count.total:>13,}"
    total = sum(count.total for count in counts.values())
    everything = sum(leaf.size for leaf in jax.tree.leaves(params))
    yield f"    {'network':22}{'':>26}{total:>13,}"
    yield f"    {'pretraining heads':22}{'':>26}{everything - total:>13,}"
    unshared = models.unshared_transformer_parameters(config.model)
    yield (
        f"  The Transformers hold {counts['transformer'].total:,} parameters; "
        f"with nothing shared they would hold {unshared:,}."
    )
