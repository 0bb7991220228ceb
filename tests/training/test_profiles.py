"""Profiles of chosen steps, and of those that a touched file asks for."""

import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import profiles
from avshare_jax.training.goodput import PROFILES, STEPS, Goodput
from avshare_jax.training.profiles import Profiles, parse_steps


def profiles_of(workdir, steps=None, start_step=0, goodput=None):
    """Of a run of 50 steps."""
    return Profiles(workdir, goodput or Goodput(), start_step, 50, steps)


def take(captured, steps):
    for step in steps:
        with captured.step(step):
            metrics = {"loss": jnp.ones((8, 8)) @ jnp.ones((8, 8))}
        captured.finish(step, metrics)


def traces(workdir):
    return {path.parts[len(workdir.parts) + 1] for path in workdir.glob("profiles/**/perfetto_trace.json.gz")}


def test_the_chosen_steps_are_captured_and_the_console_says_where(tmp_path, capsys):
    goodput = Goodput()
    goodput.turn_to(STEPS)
    with profiles_of(tmp_path, (3, 4), goodput=goodput) as captured:
        take(captured, (1, 2, 3))
        assert not traces(tmp_path)
        take(captured, (4, 5, 6))
        assert traces(tmp_path) == {"step_3"}
    output = capsys.readouterr().out
    assert output.count("A profile is in") == 1 and str(tmp_path / "profiles" / "step_3") in output
    assert list(tmp_path.glob("profiles/step_3/**/*.xplane.pb"))
    assert goodput.of_this_process()[PROFILES] > 0


def test_a_run_that_ends_before_the_last_of_them_keeps_what_there_is(tmp_path):
    with profiles_of(tmp_path, (2, 100)) as captured:
        take(captured, (1, 2, 3))
    assert traces(tmp_path) == {"step_2"}


def test_a_touched_file_asks_for_the_next_steps_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "REQUESTED_STEPS", 2)
    request = tmp_path / "profile"
    request.touch()  # of an earlier process
    with profiles_of(tmp_path, (31, 31)) as captured:
        take(captured, (9, 10))
        assert not traces(tmp_path)
        os.utime(request, (time.time() + 1,) * 2)
        take(captured, range(15, 23))  # All processes begin at a multiple of 10, whenever each of them looks.
        assert traces(tmp_path) == {"step_20"}
        os.utime(request, (time.time() + 2,) * 2)
        take(captured, (30, 31))
        assert traces(tmp_path) == {"step_20", "step_30"}
        request.unlink()
        take(captured, (40,))
    assert traces(tmp_path) == {"step_20", "step_30"}


def test_a_touched_file_leaves_the_chosen_steps_to_come(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "REQUESTED_STEPS", 1)
    with profiles_of(tmp_path, (15, 15)) as captured:
        (tmp_path / "profile").touch()
        take(captured, (10, 15))
    assert traces(tmp_path) == {"step_10", "step_15"}


@pytest.mark.parametrize(("steps", "start_step"), [((3, 5), 5), ((51, 52), 0)])
def test_steps_that_cannot_come_are_said(tmp_path, capsys, steps, start_step):
    profiles_of(tmp_path, steps, start_step)
    assert f"no profile of the steps {steps[0]} to {steps[1]}: the run takes the steps" in capsys.readouterr().out
    profiles_of(tmp_path, (5, 50), 5)
    assert not capsys.readouterr().out


def test_a_profile_that_cannot_be_captured_or_written_ends_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = tmp_path / "run"
    run.mkdir()
    (run / "profiles").touch()
    local = []
    start = jax.profiler.start_trace
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **how: (local.append(folder), start(folder, **how)))
    with profiles_of(run, (1, 1)) as captured:
        take(captured, (1, 2))
    output = capsys.readouterr().out
    assert output.count("\n") == 1 and f"The profile in {run / 'profiles' / 'step_1'} cannot be written" in output
    assert Path(local[0]).parent == tmp_path and not Path(local[0]).exists()  # gs://... would not do.

    def fail(*_, **__):
        raise RuntimeError("There is no profiler.")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    with profiles_of(run, (1, 3)) as captured:
        take(captured, (1, 2, 3))
    assert capsys.readouterr().out == "No profile of step 1 can be captured (There is no profiler). Training goes on.\n"
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_steps_are_two_numbers_in_order():
    assert parse_steps(None) is None
    assert parse_steps("100:105") == (100, 105)
    for text in ("100", "5:4", "0:3", "a:b", "1:2:3"):
        with pytest.raises(UserError, match="FIRST:LAST"):
            parse_steps(text)
