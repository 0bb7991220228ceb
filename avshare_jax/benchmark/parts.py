"""What each part of the network takes by itself: time, operations, bytes, and the least time that these allow.

Each part is compiled alone, forward and backward by its parameters and its input, and runs on one device with what that
device has of a batch: the videos of its rows, and of their clips, in the CNNs, those that the mesh gives it. So the
times do not add up to that of a step, whose parts share work and wait for other devices. Negatives are drawn among
these videos only, and the optimizer updates all parameters.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.benchmark.figures import Figures, positive, spread
from avshare_jax.benchmark.states import load_pretraining_config
from avshare_jax.models.audio_cnn import AudioCNN
from avshare_jax.models.convolution import Counted
from avshare_jax.models.placement import compiler_options
from avshare_jax.models.transformer import TRANSFORMERS
from avshare_jax.models.visual_cnn import VisualBottleneck, VisualCNN
from avshare_jax.objectives import masking, negatives
from avshare_jax.training.chips import CHIPS
from avshare_jax.training.mesh import make_mesh
from avshare_jax.training.optimizer import make_optimizer
from avshare_jax.training.plan import abstract_batch
from avshare_jax.training.pretraining import Pretraining
from avshare_jax.training.program import Program
from avshare_jax.training.sharding import batch_shardings, check_layout

LIBRARIES = ()


class Part(NamedTuple):
    """Something to measure.

    Attributes:
      name: for the table.
      function: to compile; returns arrays.
      arguments: arrays or trees of them.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Stage(nn.Module):
    """A stage of the visual CNN, in training mode.

    Attributes:
      inner: as for `VisualBottleneck`.
      temporal_kernel: the same.
      stride: of the first bottleneck.
      blocks: number of bottlenecks.
      dtype: of the computation.
    """

    inner: int
    temporal_kernel: int
    stride: int
    blocks: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (N, T, H, W, C) to (N, T, H / stride, W / stride, 4 * inner)."""
        for block in range(self.blocks):
            stride = 1 if block else self.stride
            x = VisualBottleneck(self.inner, self.temporal_kernel, stride, self.dtype)(x, True, Counted())
        return x


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    parser.add_argument("--config", default="configs/pretrain.py:demo", help="config file: FILE.py or FILE.py:VARIANT")
    parser.add_argument("--calls", type=positive, default=5, help="calls in each turn")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Compiles each part and calls it `options.calls` times in each of `options.repeats` turns, after a first one."""
    config = load_pretraining_config(options.config)
    videos, clips = share_of_device(config)
    share: Figures = {"of a batch of videos": config.batch_size, "videos": videos, "clips of each in the CNNs": clips}
    measured = {part.name: measure_part(part, options.calls, options.repeats) for part in parts_of(config)}
    return {"what one device has": share} | measured


def share_of_device(config: ConfigDict) -> tuple[int, int]:
    """Videos that one device of the config's mesh has of a batch, and clips of each that its CNNs take.

    Raises:
      UserError: the batch does not divide over the mesh.
    """
    mesh = make_mesh(config.mesh)
    check_layout(config, mesh)
    batch = abstract_batch(config)
    videos, clips, *_ = batch_shardings(batch, mesh, config.sharding)["frames"].shard_shape(batch["frames"].shape)
    return videos, clips


def measure_part(part: Part, calls: int, repeats: int) -> Figures:
    """Time, operations and bytes of one part; the larger of the least times where the device's limits are known."""
    jitted = jax.jit(part.function, compiler_options=compiler_options())
    compiled = jitted.lower(*part.arguments).compile()
    program = Program.parse(compiled.as_text())
    seconds = []
    for _ in range(1 + repeats):
        started = time.monotonic()
        for _ in range(calls):
            result = compiled(*part.arguments)
        jax.block_until_ready(result)
        seconds.append((time.monotonic() - started) / calls)
    flops, moved = (sum(number for _, number in pairs) for pairs in (program.flops(), program.traffic()))
    figures = spread("ms", [1e3 * each for each in seconds[1:]])
    figures |= {"GFLOP": flops / 1e9, "GB to and from memory": moved / 1e9}
    if chip := CHIPS.get(jax.devices()[0].device_kind):
        figures["ms at least"] = 1e3 * max(flops / chip.flops, moved / chip.bandwidth)
    return figures


def parts_of(config: ConfigDict) -> Iterator[Part]:
    """Yields every part of pretraining with arguments of the sizes that one device has of the config's batch."""
    videos, clips = share_of_device(config)
    yield from cnn_parts(config, videos * clips)
    yield from transformer_parts(config, videos)
    yield from objective_parts(config, videos)
    yield optimizer_part(config)


def cnn_parts(config: ConfigDict, clips: int) -> Iterator[Part]:
    """Both CNNs, and the visual one by stage, on this many clips."""
    model, data, dtype = config.model, config.data, jnp.dtype(config.model.dtype)
    options = dict(config.model.visual_cnn)
    frames = random_array((clips, data.frames_per_clip, data.crop, data.crop, 3), dtype)
    yield module_part("visual CNN", Training(partial(VisualCNN, **options, dtype=dtype)), frames)

    stem = partial(VisualCNN, **options | {"stage_sizes": (), "temporal_kernels": ()}, dtype=dtype)
    yield module_part("visual CNN, stem", Training(stem), frames)
    shape = output_shape(Training(stem), frames)
    for number, blocks in enumerate(options["stage_sizes"]):
        temporal_kernel = options["temporal_kernels"][number]
        stage = Stage(options["width"] * 2**number, temporal_kernel, 2 if number else 1, blocks, dtype)
        x = random_array(shape, dtype)
        yield module_part(f"visual CNN, stage {number + 1}", stage, x)
        shape = output_shape(stage, x)

    log_mel = random_array((clips, data.mel_frames, data.frontend.mels), jnp.float32)
    yield module_part("audio CNN", Training(partial(AudioCNN, **model.audio_cnn, dtype=dtype)), log_mel)


class Training(nn.Module):
    """A CNN in training mode.

    Attributes:
      make: makes it.
    """

    make: Callable[[], nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Runs it on clips that all count."""
        return self.make()(x, True, Counted())


def transformer_parts(config: ConfigDict, videos: int) -> Iterator[Part]:
    """Each Transformer on the tokens of videos; the multimodal one sees each video twice, for both kinds of pairs."""
    network, dtype = models.build(config.model), jnp.dtype(config.model.dtype)
    for name in TRANSFORMERS[config.model.fusion]:
        tokens = config.data.num_clips + 1
        shape = (2 * videos, 2 * tokens) if name == "multimodal" else (videos, tokens)

        def run(network: models.AVBert, x: jax.Array, name: str = name) -> jax.Array:
            return network.transformer(x, name, train=False)

        yield module_part(f"{name} Transformer", network, random_array((*shape, config.model.hidden), dtype), run)


def objective_parts(config: ConfigDict, videos: int) -> Iterator[Part]:
    """The draw of negatives for one modality among the clips of videos, which has no gradient."""
    options, clips = config.objectives, (videos, config.data.num_clips)
    groups = videos // math.gcd(videos, config.batch_size // options.negative_groups)
    count = masking.masked_count(config.data.num_clips, options.mask_fraction)
    positions = masking.sample_masked_positions(jax.random.key(1), *clips, count)
    targets = random_array((*clips, config.model.hidden), jnp.float32)

    def draw(targets: jax.Array, positions: jax.Array) -> Any:
        weights = negatives.LOG_WEIGHTS[options.negative_sampling]
        return negatives.sample_negatives(
            jax.random.key(2),
            targets,
            positions,
            options.num_negatives,
            weights,
            present=None,
            groups=groups,
        )

    yield Part("negatives of one modality", draw, (targets, positions))


def optimizer_part(config: ConfigDict) -> Part:
    """An update of all parameters."""
    optimizer, task = make_optimizer(config.optimizer, config.total_steps), Pretraining(config)
    data, clips = config.data, (2, config.data.num_clips)
    batch = {
        "frames": jax.ShapeDtypeStruct((*clips, data.frames_per_clip, data.crop, data.crop, 3), jnp.uint8),
        "log_mel": jax.ShapeDtypeStruct((*clips, data.mel_frames, data.frontend.mels), jnp.float32),
    }
    params = jax.eval_shape(task.init, jax.random.key(0), batch)["params"]
    params = jax.tree.map(lambda x: random_array(x.shape, x.dtype), params)

    def update(params: Any, gradient: Any, state: optax.OptState) -> tuple[Any, optax.OptState]:
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return Part("optimizer", update, (params, params, optimizer.init(params)))


def module_part(
    name: str, module: nn.Module, x: jax.Array, run: Callable[[nn.Module, jax.Array], jax.Array] | None = None
) -> Part:
    """Forward and backward pass of a module, by its variables and its input."""
    run = run or (lambda module, x: module(x))
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, method=run), x)
    variables = jax.tree.map(lambda leaf: random_array(leaf.shape, leaf.dtype), shapes)
    statistics = {key: value for key, value in variables.items() if key != "params"}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        outputs, _ = module.apply({"params": params, **statistics}, x, method=run, mutable=list(statistics))
        return jnp.sum(outputs.astype(jnp.float32) ** 2)

    return Part(name, jax.grad(loss, argnums=(0, 1)), (variables["params"], x))


def output_shape(module: nn.Module, x: jax.Array) -> tuple[int, ...]:
    """Shape of what a module makes of x."""
    return jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x)[0], x).shape


def random_array(shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Small random numbers."""
    return jnp.asarray(0.1 * np.random.default_rng(0).standard_normal(shape, np.float32), dtype)
