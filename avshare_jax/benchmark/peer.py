"""The network beside the same network in PyTorch: the same weights and inputs, turn by turn in one process.

Outputs and the gradients of all parameters are compared before anything is timed. Inputs are normalized already, and
each network has them in its own layout. Dropout is off, so that what is timed is what was compared.
"""

import argparse
import ctypes
import gc
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from avshare_jax import models
from avshare_jax.benchmark.figures import Figures, note, spread
from avshare_jax.benchmark.states import load_pretraining_config
from avshare_jax.interop import released_names, workdirs
from avshare_jax.models.placement import compiler_options
from avshare_jax.settings import UserError, reason

LIBRARIES = ()

VARIANTS = ("eager", "channels-last", "compiled", "compiled-channels-last")
TOKENS = ("visual_tokens", "audio_tokens", "multimodal_tokens")
# By dtype of the computation: how far the networks may be apart, in root mean squares relative to PyTorch's. Rounding
# decides on which side of its kink a ReLU is, so that gradients differ far more than outputs: at the recipe's size, in
# float32, each network's are 0.02 from those in float64.
BOUNDS = {"float32": {"outputs": 1e-4, "gradients": 0.1}, "bfloat16": {"outputs": 0.1, "gradients": 1.0}}

Arrays = dict[str, np.ndarray]
PASSES = {"forward": "forward, evaluation", "backward": "forward and backward, training"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what this part takes."""
    default = "configs/pretrain.py:10s,batch_size=1"
    parser.add_argument("--config", default=default, help="config file; its network must be of the released kind")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="of PyTorch; default: all")


def measure(options: argparse.Namespace) -> dict[str, Figures]:
    """Takes `options.repeats` turns of ours and each variant of PyTorch, after a first call of each."""
    return measure_config(
        load_pretraining_config(options.config, network_alone=True), options.variants, options.repeats
    )


def measure_config(config: ConfigDict, variants: Sequence[str], repeats: int) -> dict[str, Figures]:
    """Measures the network of a config on `batch_size` videos, in float32 on a CPU and in bfloat16 on a GPU.

    Raises:
      UserError: PyTorch is missing or cannot use the device, the config's network is of another kind than the released
        one, or the networks disagree.
    """
    torch = import_torch()
    check_device(torch)
    config = config.copy_and_resolve_references()
    config.model.update(dropout=0.0, dtype="float32" if jax.default_backend() == "cpu" else "bfloat16")
    variables, inputs = random_variables(config), random_inputs(config)
    try:
        state_dict = released_names.to_torch(config.model, variables)
    except ValueError as error:
        raise UserError(str(error)) from error
    note("ours: compiling, and running both passes ...")
    networks: dict[str, Ours | Peer] = {"ours": Ours(config.model, variables, inputs)}
    expected = networks["ours"].outputs(), networks["ours"].gradients()
    results = {"sizes": {"videos": config.batch_size, "clips": config.data.num_clips, "threads": os.cpu_count()}}
    for variant in variants:
        note(f"PyTorch, {variant}: running both passes, and comparing ...")
        try:
            peer = Peer(config.model, state_dict, inputs, variant)
            found = peer.outputs(), peer.gradients()
        except RuntimeError as error:  # What compilers and allocators raise.
            note(f"PyTorch, {variant} is left out: {reason(error)}.")
            continue
        results[f"ours and PyTorch, {variant}, apart by"] = compare(expected, found, config.model.dtype)
        networks[f"PyTorch, {variant}"] = peer
    del expected
    for name, title in PASSES.items():
        results |= measure_pass(name, title, networks, config.batch_size, repeats)
    return results


def import_torch() -> Any:
    """Returns the module `torch`; `UserError` where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise UserError("PyTorch, to measure against, is not installed: pip install -e '.[torch]'.") from error
    return torch


def check_device(torch: Any) -> None:
    """Checks that PyTorch can use what JAX computes on; `UserError` where it cannot, or would find no memory there."""
    if jax.default_backend() == "cpu":
        return
    if not (jax.default_backend() == "gpu" and torch.cuda.is_available()):
        raise UserError(
            f"JAX computes on {jax.devices()[0].device_kind}, which this PyTorch cannot use: install another, or "
            "measure on the CPU with JAX_PLATFORMS=cpu before the command."
        )
    if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true").lower() not in ("false", "0"):
        raise UserError(
            "JAX takes most of the GPU's memory when it starts, which leaves PyTorch too little: put "
            "XLA_PYTHON_CLIENT_PREALLOCATE=false before the command."
        )


class Ours:
    """This project's network, compiled."""

    def __init__(self, model_config: ConfigDict, variables: Mapping[str, Any], inputs: Arrays):
        """Compiles both passes for variables and inputs, see `random_variables` and `random_inputs`."""
        self.config, network = model_config, models.build(model_config)
        self.arguments = jax.device_put((variables["params"], variables["batch_stats"], inputs))

        def forward(params: Any, batch_stats: Any, inputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
            outputs = network.apply({"params": params, "batch_stats": batch_stats}, inputs, train=False)
            return {name: outputs[name] for name in TOKENS}

        def loss(params: Any, batch_stats: Any, inputs: Mapping[str, jax.Array]) -> tuple[jax.Array, Any]:
            variables = {"params": params, "batch_stats": batch_stats}
            outputs, updates = network.apply(variables, inputs, train=True, mutable=["batch_stats"])
            return sum(jnp.mean(outputs[name].astype(jnp.float32) * inputs[name]) for name in TOKENS), updates

        functions = {"forward": forward, "backward": jax.value_and_grad(loss, has_aux=True)}
        self.compiled = {
            name: jax.jit(run, compiler_options=compiler_options()).lower(*self.arguments).compile()
            for name, run in functions.items()
        }

    def run(self, name: str) -> Any:
        """Runs one of `PASSES` and waits: the tokens by name, or ((loss, updates), gradients)."""
        return jax.block_until_ready(self.compiled[name](*self.arguments))

    def outputs(self) -> Arrays:
        """Runs the forward pass; float32 tokens by name."""
        return {name: np.asarray(tokens, np.float32) for name, tokens in self.run("forward").items()}

    def gradients(self) -> Arrays:
        """Runs both passes; gradients by released name."""
        _, params = self.run("backward")
        no_statistics = jax.tree.map(np.zeros_like, self.arguments[1])
        return released_names.to_torch(self.config, {"params": params, "batch_stats": no_statistics})

    def memory(self, name: str) -> float | None:
        """Bytes beside weights and inputs, results included: by the compiler, on a CPU what the process grew by."""
        if jax.default_backend() == "cpu":
            return resident_growth(lambda: self.run(name))
        plan = self.compiled[name].memory_analysis()
        return plan.temp_size_in_bytes + plan.output_size_in_bytes


class Peer:
    """The network in PyTorch."""

    def __init__(self, model_config: ConfigDict, state_dict: Arrays, inputs: Arrays, variant: str):
        """Takes weights by released name, inputs of `random_inputs`, and one of `VARIANTS`."""
        import torch

        from avshare_jax.benchmark.peer_network import PeerNetwork

        self.torch, self.device = torch, "cpu" if jax.default_backend() == "cpu" else "cuda"
        torch.backends.cudnn.benchmark = True
        self.mixed = model_config.dtype == "bfloat16"
        self.plain = PeerNetwork(model_config)
        self.plain.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state_dict.items()})
        self.plain.to(self.device)
        self.clips = [
            torch.from_numpy(inputs["frames"].transpose(0, 1, 5, 2, 3, 4)),
            torch.from_numpy(inputs["log_mel"][:, :, None].swapaxes(3, 4)),
        ]
        self.directions = {name: torch.from_numpy(inputs[name]).to(self.device) for name in TOKENS}
        if variant.endswith("channels-last"):
            self.plain.visual_conv.to(memory_format=torch.channels_last_3d)
            self.plain.audio_conv.to(memory_format=torch.channels_last)
        else:
            self.clips = [clips.contiguous() for clips in self.clips]
        self.clips = [clips.to(self.device) for clips in self.clips]
        self.network = torch.compile(self.plain) if variant.startswith("compiled") else self.plain

    def run(self, name: str) -> Any:
        """Runs one of `PASSES` and waits: the tokens by name, or the gradients by parameter."""
        training = name == "backward"
        self.plain.train(training)
        with self.torch.set_grad_enabled(training):
            with self.torch.autocast(self.device, self.torch.bfloat16, enabled=self.mixed):
                results = self.network(*self.clips)
            if training:
                sum((results[name].float() * self.directions[name]).mean() for name in TOKENS).backward()
                results = {parameter: x.grad for parameter, x in self.plain.named_parameters()}
                self.plain.zero_grad(set_to_none=True)
        if self.device == "cuda":
            self.torch.cuda.synchronize()
        return results

    def outputs(self) -> Arrays:
        """Runs the forward pass; float32 tokens by name."""
        return {name: tokens.float().cpu().numpy() for name, tokens in self.run("forward").items()}

    def gradients(self) -> Arrays:
        """Runs both passes; gradients by released name."""
        return {name: gradient.float().cpu().numpy() for name, gradient in self.run("backward").items()}

    def memory(self, name: str) -> float | None:
        """Bytes beside weights and inputs, results included: of the GPU; on a CPU what the process grew by."""
        if self.device == "cpu":
            return resident_growth(lambda: self.run(name))
        before = self.torch.cuda.memory_allocated()
        self.torch.cuda.reset_peak_memory_stats()
        self.run(name)
        return self.torch.cuda.max_memory_allocated() - before


def random_variables(config: ConfigDict) -> dict[str, Any]:
    """`params` and `batch_stats` of a config's network in float32: activations keep their size, and nothing is zero."""
    random = np.random.default_rng(0)

    def fill(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name, value = path[-1].key, random.standard_normal(leaf.shape, np.float32)
        if name in ("scale", "var"):
            return np.exp(0.1 * value)
        if name == "kernel":
            return value * np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
        return (0.5 if name == "u" else 0.1) * value

    return jax.tree_util.tree_map_with_path(fill, workdirs.abstract_network(config.model))


def random_inputs(config: ConfigDict) -> Arrays:
    """Normalized `frames` and `log_mel` of a batch, and for each of `TOKENS` what its gradient is, all float32."""
    random, data, hidden = np.random.default_rng(1), config.data, config.model.hidden
    clips, tokens = (config.batch_size, data.num_clips), data.num_clips + 1
    shapes = {
        "frames": (*clips, data.frames_per_clip, data.crop, data.crop, 3),
        "log_mel": (*clips, data.mel_frames, data.frontend.mels),
        "visual_tokens": (config.batch_size, tokens, hidden),
        "audio_tokens": (config.batch_size, tokens, hidden),
        "multimodal_tokens": (config.batch_size, 2 * tokens, hidden),
    }
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def compare(ours: tuple[Arrays, Arrays], peers: tuple[Arrays, Arrays], dtype: str) -> Figures:
    """Root mean squares of the differences of outputs and gradients, relative to PyTorch's.

    Raises:
      UserError: they are above `BOUNDS`; then one of the networks is wrong, and times of it mean nothing.
    """
    figures = {}
    for (kind, bound), mine, theirs in zip(BOUNDS[dtype].items(), ours, peers, strict=True):
        difference = sum(np.sum(np.square(mine[name] - x, dtype=np.float64)) for name, x in theirs.items())
        apart = float(np.sqrt(difference / sum(np.sum(np.square(x, dtype=np.float64)) for x in theirs.values())))
        if not apart <= bound:
            raise UserError(
                f"The networks disagree: their {kind} are apart by {apart:.2g} of PyTorch's root mean square, and "
                f"{bound:g} is what {dtype} explains. Nothing was timed."
            )
        figures[f"{kind}, relative RMS"] = apart
    return figures


def measure_pass(
    name: str, title: str, networks: Mapping[str, Ours | Peer], videos: int, repeats: int
) -> dict[str, Figures]:
    """Figures of each network and ratios of ours to PyTorch's, of turns taken one after the other: A B A B."""
    seconds: dict[str, list[float]] = {label: [] for label in networks}
    core_seconds: dict[str, list[float]] = {label: [] for label in networks}
    for turn in range(repeats):
        note(f"{title}: turn {turn + 1} of {repeats} ...")
        for label, network in networks.items():
            wall, cores = time.monotonic(), time.process_time()
            network.run(name)
            seconds[label].append(time.monotonic() - wall)
            core_seconds[label].append(time.process_time() - cores)
    memory = {label: network.memory(name) for label, network in networks.items()}

    results = {}
    for label in networks:
        figures = spread("seconds", seconds[label]) | spread("core-seconds", core_seconds[label])
        figures |= spread("videos a second", [videos / each for each in seconds[label]])
        results[f"{title}: {label}"] = figures | (
            {} if memory[label] is None else {"MB beside weights and inputs": memory[label] / 1e6}
        )
    for label in list(networks)[1:]:
        figures = spread("videos a second", ratios(seconds[label], seconds["ours"]))
        figures |= spread("videos a core-second", ratios(core_seconds[label], core_seconds["ours"]))
        results[f"{title}: ours / {label}"] = figures | (
            {} if memory[label] is None else {"memory": memory["ours"] / memory[label]}
        )
    return results


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Quotients, turn by turn."""
    return [numerator / denominator for numerator, denominator in zip(numerators, denominators, strict=True)]


def resident_growth(run: Callable[[], Any]) -> float | None:
    """Bytes by which this process's memory grows at most while something runs; None where the system is not Linux."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # Else what was freed before could be taken again unseen.
    Path("/proc/self/clear_refs").write_text("5")  # The largest size is counted from here on.
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """Bytes that the system counts for this process under a name."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
