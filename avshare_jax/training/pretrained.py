"""What a downstream run takes from the one in `config.init_from`: the sizes of its network, and the weights."""

from collections.abc import Sequence

import jax
from etils import epath
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from avshare_jax import sizes
from avshare_jax.models.avbert import WHOLE
from avshare_jax.settings import UserError
from avshare_jax.training import plan
from avshare_jax.training.checkpoints import latest_step, restore_network, saved_shapes
from avshare_jax.training.classification import Classification, Variables
from avshare_jax.training.run_config import read_config
from avshare_jax.training.step import TrainState

# What may differ from the network that a run starts from.
OF_NO_SHAPE = ("dtype", "dropout")
# What the plan says of the network.
SIZES = ("hidden", "layers", "heads", "rank", "dtype", "dropout")


def starting_model(config: ConfigDict, workdir: epath.PathLike) -> ConfigDict:
    """Returns the sizes of the network: those of `config.init_from`, or else `config.model`.

    Raises:
      UserError: there is nothing to start from, or `config.model` asks for another architecture.
    """
    if config.init_from is None:
        return config.model
    source = recorded_config(workdir)
    if source is None or source.init_from != config.init_from:
        source = read_config(epath.Path(config.init_from).expanduser())
    model, base = source.model.copy_and_resolve_references(), sizes.base()
    for name in OF_NO_SHAPE:
        if is_asked(name, config.model, base):
            model[name] = config.model[name]
    # As plain values: configs that came from files differ in more than their values.
    asked, there, default = config.model.to_dict(), model.to_dict(), base.to_dict()
    for name, value in asked.items():
        if name != "positions" and value != default[name] and value != there.get(name):
            raise UserError(
                f"The network in config.init_from={config.init_from} is of another architecture: config.model.{name} "
                f"is {there.get(name)} there and {value} here. Leave config.model out, or choose another."
            )
    return model


def recorded_config(workdir: epath.PathLike) -> ConfigDict | None:
    """The config that a downstream run in this workdir was started with; None if there is none."""
    if not (epath.Path(workdir) / "config.json").exists():
        return None
    config = read_config(workdir)
    return config if "task" in config else None


def network_shapes(config: ConfigDict, task: Classification, mesh: Mesh) -> Variables:
    """Shapes of `params` and `batch_stats` of the network without heads, each whole on every device of the mesh."""
    variables = jax.eval_shape(task.init, jax.random.key(0), plan.abstract_batch(config))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return {
        name: jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), variables[name][WHOLE]
        )
        for name in ("params", "batch_stats")
    }


def load_network(config: ConfigDict, shapes: Variables) -> Variables:
    """Reads the network's weights from `config.init_from`.

    Args:
      config: of the run, whose `init_from` is not None.
      shapes: from `network_shapes`.

    Raises:
      UserError: there is no checkpoint, or it is damaged, lacks parts that the task needs or has them of other shapes.
    """
    step = starting_step(config, sorted(shapes["params"]))
    weights = restore_network(epath.Path(config.init_from).expanduser(), step, shapes)
    print(f"Starting from step {step} of {config.init_from}.", flush=True)
    return weights


def starting_step(config: ConfigDict, parts: Sequence[str]) -> int:
    """The step of the checkpoint in `config.init_from` to start from.

    Args:
      config: of the run.
      parts: of the network that the task needs.

    Raises:
      UserError: there is no checkpoint, or it cannot be read or lacks parts.
    """
    source = epath.Path(config.init_from).expanduser()
    if (step := latest_step(source)) is None:
        raise UserError(f"The run in config.init_from={config.init_from} has no checkpoint yet: train it further.")
    present = {tuple(path.split("/")[:3]) for path in saved_shapes(source, step)}
    if not present:
        raise UserError(
            f"The checkpoint of step {step} in config.init_from={config.init_from} cannot be read: run main.py on that "
            "workdir again, which goes on from the checkpoint before, or choose another."
        )
    if missing := [part for part in parts if ("params", WHOLE, part) not in present]:
        raise UserError(
            f"The network in config.init_from={config.init_from} has no {', '.join(missing)}, which {config.name} "
            "needs: it was trained for something else. Choose another."
        )
    return step


def put_network(weights: Variables, state: TrainState) -> TrainState:
    """Returns the state with these weights of the network, laid out as they are in the state."""
    found = {"params": state.params, "batch_stats": state.batch_stats}
    lies = {name: jax.tree.map(lambda x: x.sharding, tree[WHOLE]) for name, tree in found.items()}
    weights = jax.device_put(weights, lies)
    return state.replace(**{name: tree | {WHOLE: weights[name]} for name, tree in found.items()})


def describe_start(config: ConfigDict) -> str:
    """The line of the plan that says where weights come from."""
    frozen = ", ".join(config.task.frozen)
    start = f"the weights in {config.init_from}" if config.init_from else "random weights"
    return f"  The network starts from {start}; {f'frozen: {frozen}' if frozen else 'all that is used is trained'}."


def describe_sizes(config: ConfigDict, asked: ConfigDict) -> str:
    """The line of the plan that says which network this is, and what of it comes from where.

    Args:
      config: of the run, with the network that is used.
      asked: `config.model` as it was given.
    """
    base = sizes.base()
    from_config = [name for name in SIZES if config.init_from is None or is_asked(name, asked, base)]
    of_source = [name for name in SIZES if name not in from_config]
    groups = {f"as in {config.init_from}": of_source, "from config.model": from_config}
    said = [
        f"{', '.join(f'{name}={config.model[name]}' for name in names)} {origin}"
        for origin, names in groups.items()
        if names
    ]
    return f"  The network has {'; '.join(said)}."


def is_asked(name: str, asked: ConfigDict, base: ConfigDict) -> bool:
    """Whether a field of `config.model` replaces that of the network to start from: where it is not the default."""
    return name in OF_NO_SHAPE and asked[name] != base[name]


def frontend_differences(config: ConfigDict) -> str:
    """How the front end of the run that this one starts from differs from its own; empty where neither does."""
    if config.init_from is None:
        return ""
    there = read_config(epath.Path(config.init_from).expanduser()).data.frontend
    here = config.data.frontend
    return ", ".join(
        f"{name}={there.get(name)} there and {here[name]} here" for name in here if there.get(name) != here[name]
    )
