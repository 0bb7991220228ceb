"""Checkpoints come back whole, evaluation reads them beside a run, and a workdir knows whose it is."""

import errno
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import checkpoints, optimizer, step

IDENTITY = {"name": "lines", "fingerprint": "abc"}


@pytest.fixture
def state(linear_config, linear_task, step_batches):
    transformation = optimizer.make_optimizer(linear_config.optimizer, linear_config.total_steps)
    state = step.create_state(linear_task, transformation, jax.random.key(0), step_batches().batch(0))
    state, _ = step.train_step(state, step_batches().batch(0), task=linear_task, optimizer=transformation, seed=0)
    return state


def abstract(tree):
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def test_state_comes_back_bit_by_bit(state, tmp_path):
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        assert saved.latest_step() is None
        saved.save(state)
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        assert saved.latest_step() == 1
        restored = saved.restore(abstract(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_saved_state_does_not_change_when_its_buffers_are_reused(state, tmp_path):
    """The next step is given the state's memory while the checkpoint is still being written."""
    state = jax.device_put(jax.tree.map(lambda x: jnp.broadcast_to(x, (1000, *x.shape)) + 0, state))
    state = state.replace(step=jnp.int32(1))
    before = jax.tree.map(np.array, state)
    overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 1, tree), donate_argnums=0)
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
        for _ in range(3):
            state = overwrite(state)
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        jax.tree.map(np.testing.assert_array_equal, saved.restore(abstract(before)), before)


def test_checkpoint_of_another_network_is_refused(state, tmp_path):
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
        other = state.replace(params={"quadratic": state.params["linear"]})
        with pytest.raises(UserError, match=r"step 1 .* does not fit the network"):
            saved.restore(abstract(other))


def test_evaluation_reads_variables_alone(state, tmp_path):
    assert checkpoints.latest_step(tmp_path) is None
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
    assert checkpoints.latest_step(tmp_path) == 1
    variables = checkpoints.restore_variables(tmp_path, 1, abstract(state.variables))
    jax.tree.map(np.testing.assert_array_equal, variables, state.variables)


def test_what_one_process_cannot_read_none_of_them_goes_on_with(state, tmp_path, monkeypatch):
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
    monkeypatch.setattr(checkpoints, "gather", lambda failure: [failure, "The checkpoint of step 1 cannot be read."])
    with pytest.raises(checkpoints.UnusableCheckpointError, match="step 1 cannot be read"):
        checkpoints.restore_variables(tmp_path, 1, abstract(state.variables))


def test_half_written_checkpoint_does_not_count(state, tmp_path):
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        saved.save(state)
        saved.save(state.replace(step=jnp.int32(2)))
    # What a process leaves that is killed while it writes.
    (tmp_path / "checkpoints" / "2").rename(tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp")
    assert checkpoints.latest_step(tmp_path) == 1 and checkpoints.saved_steps(tmp_path) == [1]
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        assert saved.latest_step() == 1
        saved.save(state.replace(step=jnp.int32(2)))
    assert checkpoints.latest_step(tmp_path) == 2
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


def files_with_data(workdir, step):
    """The files of a checkpoint without which, or with other bits, its arrays would not be what they were."""
    files = [path for path in (workdir / "checkpoints" / str(step)).rglob("*") if path.is_file()]
    return sorted(path for path in files if path.parent.name == "d" or path.name == "metadata")


def damage_by_flip(path, rng):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def damage_by_cut(path, rng):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [damage_by_flip, damage_by_cut])
def test_damage_anywhere_is_noticed_or_harmless(state, tmp_path, damage):
    """Whatever file it is in, the state comes back as it was saved, or not at all."""
    rng = np.random.default_rng(0)
    state = state.replace(params=jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(30, 20)), x.dtype), state.params))
    with checkpoints.Checkpoints(tmp_path / "original", kept=1) as saved:
        saved.save(state)
    noticed = set()
    paths = files_with_data(tmp_path / "original", 1)
    for number, path in enumerate(paths * (3 if damage is damage_by_flip else 1)):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "original", workdir)
        damage(workdir / path.relative_to(tmp_path / "original"), rng)
        with checkpoints.Checkpoints(workdir, kept=1) as saved:
            try:
                restored = saved.restore(abstract(state))
            except checkpoints.DamagedCheckpointError as error:
                assert str(error).startswith("The checkpoint of step 1 in ") and str(error).endswith(".")
                noticed.add(path)
            else:
                jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert max(paths, key=lambda path: path.stat().st_size) in noticed  # where the arrays are


def test_a_flipped_bit_of_a_weight_is_noticed_by_run_and_evaluation(state, tmp_path, monkeypatch):
    """As disks and memory do it below every checksum of the file format."""
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        saved.save(state)
        saved.save(state.replace(step=jnp.int32(2)))

    restore = ocp.CheckpointManager.restore

    def flipped(manager, step, args):
        restored = restore(manager, step, args=args)
        if step == 2:
            kernel = np.array(restored["variables"]["params"]["linear"]["kernel"])
            kernel.view(np.uint32)[1, 1] ^= 1
            restored["variables"]["params"]["linear"]["kernel"] = jnp.asarray(kernel)
        return restored

    monkeypatch.setattr(ocp.CheckpointManager, "restore", flipped)
    with pytest.raises(UserError, match="step 2 .* is damaged: variables/params/linear/kernel is not what was saved"):
        checkpoints.restore_variables(tmp_path, 2, abstract(state.variables))
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        with pytest.raises(checkpoints.DamagedCheckpointError, match="step 2 .* is damaged"):
            saved.restore(abstract(state))
        saved.set_aside_latest()
        assert saved.latest_step() == 1
        jax.tree.map(np.testing.assert_array_equal, saved.restore(abstract(state)), state)
        saved.save(state.replace(step=jnp.int32(2)))
    assert (tmp_path / "damaged" / "2" / "variables").is_dir()
    assert checkpoints.latest_step(tmp_path) == 2


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1073741824 bytes."),
        ValueError("UNAVAILABLE: Error reading gs://runs/a/checkpoints/1: 503"),
        PermissionError(errno.EACCES, "Permission denied"),
    ],
)
def test_a_checkpoint_that_the_machine_cannot_read_now_is_not_called_damaged(state, tmp_path, monkeypatch, error):
    """Otherwise a run on too small a machine would move all of its checkpoints away and begin anew."""

    def restore(*_, **__):
        raise error

    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
        for read in (lambda: saved.restore(abstract(state)), saved.verify_latest):
            with pytest.raises(UserError if isinstance(error, PermissionError) else type(error)) as raised:
                read()
            assert error in (raised.value, raised.value.__cause__)


def test_a_full_disk_costs_one_checkpoint_and_is_said(tmp_path):
    """A limit on the size of files stands for the disk."""
    code = f"""
import resource
import jax, jax.numpy as jnp
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import Checkpoints
from avshare_jax.training.step import TrainState

def state(step, size):
    # Random, because what is written is compressed.
    kernel = jax.random.normal(jax.random.key(step), (size,))
    return TrainState(jnp.int32(step), {{"kernel": kernel}}, {{}}, (), jnp.int32(0), jnp.int32(0))

try:
    with Checkpoints({str(tmp_path)!r}, kept=3) as checkpoints:
        checkpoints.save(state(1, 10))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        checkpoints.save(state(2, 100_000))
        checkpoints.save(state(3, 10))
        checkpoints.save(state(4, 100_000))
except UserError as error:
    print("ended:", error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    going_on, ended = [line for line in result.stdout.splitlines() if "step" in line]
    assert going_on.startswith("The checkpoint of step 2 could not be written (")
    assert going_on.endswith("; the last whole one is of step 1. Training goes on.")
    assert ended.startswith("ended: The checkpoint of step 4 could not be written (")
    assert "the last whole one is of step 3. Make room and give the same command again" in ended
    assert checkpoints.latest_step(tmp_path) == 3


def test_config_comes_back_with_its_tuples(linear_config, tmp_path):
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    loaded = checkpoints.load_config(tmp_path)
    assert loaded == linear_config and loaded.model.kernels == (1, 3)


def test_load_config_without_a_run(tmp_path):
    with pytest.raises(UserError, match=r"There is no run in .*main.py --workdir"):
        checkpoints.load_config(tmp_path)


def test_other_fields_than_the_model_may_change_and_it_is_said(linear_config, tmp_path, capsys):
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    assert capsys.readouterr().out == ""
    linear_config.total_steps = 99
    linear_config.optimizer.b1 = 0.5
    linear_config.log_every = 77
    linear_config.mesh = {"data": 1, "model": -1}
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    assert capsys.readouterr().out == (
        "Going on with other settings than before: optimizer.b1 was 0.9 and is now 0.5, "
        "total_steps was 8 and is now 99.\n"  # and nothing about the machine
    )
    assert checkpoints.load_config(tmp_path).total_steps == 99


def test_variables_of_another_network_are_refused(state, tmp_path):
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
    other = {"params": {"quadratic": state.params["linear"]}, "batch_stats": state.batch_stats}
    with pytest.raises(UserError, match=r"step 1 .* does not fit the network"):
        checkpoints.restore_variables(tmp_path, 1, abstract(other))


def test_workdir_of_another_model_is_refused(linear_config, tmp_path):
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    linear_config.model.width = 4
    linear_config.model.heads.count = 5
    with pytest.raises(UserError, match=r"model.heads.count is 2 and not 5, model.width is 3 and not 4"):
        checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    assert checkpoints.load_config(tmp_path).model.width == 3


def test_workdir_of_another_data_set_is_refused(linear_config, tmp_path):
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    with pytest.raises(UserError, match=r"dataset.fingerprint is abc and not xyz"):
        checkpoints.claim_workdir(tmp_path, linear_config, {**IDENTITY, "fingerprint": "xyz"})


def test_workdir_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written .*choose another --workdir"):
        checkpoints.check_workdir(tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config", "", "Expecting value"),
        ("config", "[1]", "it holds a list instead of fields"),
        ("config", '{"name": "x", "seed": 3', "Expecting"),
        ("config", '{"seed": NaN}', "NaN where a number should be"),
        ("config", "{}", "it has no name"),
        ("config", '{"name": "x", "seed": "3"}', "its seed is '3'"),
        ("config", '{"name": "x", "seed": true}', "its seed is True"),
        ("config", '{"name": "x", "seed": 3, "total_steps": 8, "model": [], "data": {}}', r"its model is \[\]"),
        ("config", b"\xff\xfe", "codec can't decode"),
        ("dataset", "null", "it holds a NoneType instead of fields"),
        ("dataset", '{"name": "lines"}', "it has no fingerprint"),
        ("dataset", '{"name": "lines", "fingerprint": 5}', "its fingerprint is 5"),
        ("dataset", '{"name": "a+b", "fingerprint": "1"}', "not one fingerprint for each name"),
        ("dataset", None, "No such file"),
    ],
)
def test_a_damaged_record_of_the_run_is_a_sentence(linear_config, tmp_path, name, content, words):
    checkpoints.claim_workdir(tmp_path, linear_config, IDENTITY)
    path = tmp_path / f"{name}.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    load = {"config": checkpoints.load_config, "dataset": checkpoints.load_identity}[name]
    for read in (load, lambda workdir: checkpoints.check_run(workdir, linear_config, IDENTITY)):
        with pytest.raises(UserError, match=rf"{name}.json is damaged or was edited \(.*{words}.*\): restore it"):
            read(tmp_path)


def test_the_records_of_a_run_come_back(linear_config, tmp_path):
    checkpoints.claim_workdir(tmp_path, linear_config, {"name": "a+b", "fingerprint": "1+2"})
    assert checkpoints.load_identity(tmp_path) == {"name": "a+b", "fingerprint": "1+2"}
    checkpoints.claim_workdir(tmp_path / "imported", linear_config, {"name": None, "fingerprint": None})
    assert checkpoints.load_identity(tmp_path / "imported") == {"name": None, "fingerprint": None}


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(state, tmp_path, number):
    kernel = state.params["linear"]["kernel"].at[1, 1].set(number)
    layers = {f"layer_{place:02d}": {"kernel": kernel} for place in range(12)}
    state = state.replace(params={"network": {"head": state.params["linear"], **layers}}, batch_stats={"network": {}})
    with checkpoints.Checkpoints(tmp_path, kept=1) as saved:
        saved.save(state)
    with pytest.raises(UserError, match="not finite, in 12 of 14 arrays") as ending:
        checkpoints.restore_variables(tmp_path, 1, abstract(state.variables))
    names = [f"params/network/layer_{place:02d}/kernel" for place in range(10)]
    assert f": {', '.join(names)}, and 2 more. " in str(ending.value)
    with pytest.raises(UserError, match="not finite, in 12 of 14 arrays"):
        network = {name: tree["network"] for name, tree in abstract(state.variables).items()}
        checkpoints.restore_network(tmp_path, 1, network)


@pytest.mark.parametrize(
    "shortage",
    [
        OSError(errno.EMFILE, "Too many open files"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
    ],
)
def test_a_checkpoint_is_not_called_damaged_where_the_machine_lacks_something(shortage, tmp_path):
    class Manager:
        directory = tmp_path

        def restore(self, step, args):
            raise shortage

    with pytest.raises(type(shortage)) as caught:
        checkpoints._restore(Manager(), 1, {})
    assert caught.value is shortage
