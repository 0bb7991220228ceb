"""Says what a run will do before it does it: devices, parameters, clips, steps, and where output goes."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from etils import epath
from jax.sharding import Mesh
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.data.mixtures import Mixture
from avshare_jax.models.avbert import INPUTS, MODALITIES, PRESENCE
from avshare_jax.objectives.classification import MULTI_LABEL
from avshare_jax.training.step import Batch, Task


def describe_run(config: ConfigDict, workdir: epath.PathLike, mesh: Mesh, task: Task) -> str:
    """Returns the plan of a run as lines of text; nothing is computed on a device."""
    lines = _classifier_lines if "task" in config else _parameter_lines
    return "\n".join([*_run_lines(config, workdir, mesh), *lines(config, task)])


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
    data, labels = config.data, {}
    modalities = config.task.modalities if "task" in config else MODALITIES
    if "task" in config:
        several = config.task.loss.name in MULTI_LABEL
        classes = (len(config.task.class_names),) if several else ()
        shape = jax.ShapeDtypeStruct((config.batch_size, *classes), jnp.uint8 if several else jnp.int32)
        labels = {"labels" if several else "label": shape}
    clips = (config.batch_size, data.num_clips)
    flags = dict.fromkeys(PRESENCE.values(), jax.ShapeDtypeStruct((config.batch_size,), jnp.bool_))
    contents = {
        "frames": jax.ShapeDtypeStruct((*clips, data.frames_per_clip, data.crop, data.crop, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((*clips, data.mel_frames, data.frontend.mels), jnp.float32),
    }
    read = {INPUTS[name]: contents[INPUTS[name]] for name in modalities}
    return labels | (flags if data.keep_incomplete else {}) | read


def _run_lines(config: ConfigDict, workdir: epath.PathLike, mesh: Mesh) -> Iterator[str]:
    device = jax.devices()[0]
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items())
    data = config.data
    seconds = data.frames_per_clip * data.frame_stride / data.frontend.fps
    yield f"Run {config.name}"
    yield f"  devices     {jax.device_count()} x {device.device_kind} in {jax.process_count()} process(es), mesh {axes}"
    yield f"  steps       {config.total_steps:,}, each of {config.batch_size} videos"
    contents = {
        "visual": f"{data.frames_per_clip} frames of {data.crop} x {data.crop} pixels",
        "audio": f"{data.mel_frames} x {data.frontend.mels} log-mel",
    }
    modalities = config.task.modalities if "task" in config else MODALITIES
    clip = ", ".join(contents[name] for name in modalities)
    yield f"  a video     {data.num_clips} clip{'s' * (data.num_clips > 1)} of {seconds:g} s: {clip}"
    if jax.config.jax_enable_compilation_cache and (compiled := jax.config.jax_compilation_cache_dir):
        yield f"  compiled    programs are kept in {compiled}"
    yield f"  output      {workdir}, a checkpoint every {config.checkpoint_every:,} steps"


def _classifier_lines(config: ConfigDict, task: Task) -> Iterator[str]:
    params = jax.eval_shape(task.init, jax.random.key(0), abstract_batch(config))["params"]
    parts = params["network"] | {name: tree for name, tree in params.items() if name != "network"}
    yield f"  {'parameters':24}{'trained':>13}{'frozen':>13}"
    for name, tree in parts.items():
        count = sum(leaf.size for leaf in jax.tree.leaves(tree))
        trained = task.is_trained(f"network/{name}/" if name in params["network"] else f"{name}/")
        yield f"    {name:22}{f'{count:,}' if trained else '':>13}{'' if trained else f'{count:,}':>13}"
    yield f"  {len(config.task.class_names)} classes, {config.task.loss.name}"


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
