"""Checkpoints come back whole, evaluation reads them beside a run, and a workdir knows whose it is."""

import jax
import jax.numpy as jnp
import numpy as np
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


def test_half_written_checkpoint_does_not_count(state, tmp_path):
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        saved.save(state)
        saved.save(state.replace(step=jnp.int32(2)))
    # What a process leaves that is killed while it writes.
    (tmp_path / "checkpoints" / "2").rename(tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp")
    assert checkpoints.latest_step(tmp_path) == 1
    with checkpoints.Checkpoints(tmp_path, kept=2) as saved:
        assert saved.latest_step() == 1
        saved.save(state.replace(step=jnp.int32(2)))
    assert checkpoints.latest_step(tmp_path) == 2
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"1", "2"}


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
