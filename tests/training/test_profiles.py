"""Profiles of chosen steps, and of those that a touched file asks for."""

import os
import time

import jax.numpy as jnp
import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import profiles
from avshare_jax.training.profiles import Profiles, parse_steps


def take(captured, steps):
    for step in steps:
        with captured.step(step):
            metrics = {"loss": jnp.ones((8, 8)) @ jnp.ones((8, 8))}
        captured.finish(step, metrics)


def traces(workdir):
    return {path.parts[len(workdir.parts) + 1] for path in workdir.glob("profiles/**/perfetto_trace.json.gz")}


def test_the_chosen_steps_are_captured_and_the_console_says_where(tmp_path, capsys):
    with Profiles(tmp_path, (3, 4)) as captured:
        take(captured, (1, 2, 3))
        assert not traces(tmp_path)
        take(captured, (4, 5, 6))
        assert traces(tmp_path) == {"step_3"}
    output = capsys.readouterr().out
    assert output.count("A profile is in") == 1 and str(tmp_path / "profiles" / "step_3") in output
    assert list(tmp_path.glob("profiles/step_3/**/*.xplane.pb"))


def test_a_run_that_ends_before_the_last_of_them_keeps_what_there_is(tmp_path):
    with Profiles(tmp_path, (2, 100)) as captured:
        take(captured, (1, 2, 3))
    assert traces(tmp_path) == {"step_2"}


def test_a_touched_file_asks_for_the_next_steps_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setattr(profiles, "REQUESTED_STEPS", 2)
    request = tmp_path / "profile"
    request.touch()  # of an earlier process
    with Profiles(tmp_path) as captured:
        take(captured, (1, 2))
        assert not traces(tmp_path)
        os.utime(request, (time.time() + 1,) * 2)
        take(captured, (3, 4, 5))
        assert traces(tmp_path) == {"step_3"}
        os.utime(request, (time.time() + 2,) * 2)
        take(captured, (6, 7))
        assert traces(tmp_path) == {"step_3", "step_6"}
        request.unlink()
        take(captured, (8,))
    assert traces(tmp_path) == {"step_3", "step_6"}


def test_steps_are_two_numbers_in_order():
    assert parse_steps(None) is None
    assert parse_steps("100:105") == (100, 105)
    for text in ("100", "5:4", "0:3", "a:b", "1:2:3"):
        with pytest.raises(UserError, match="FIRST:LAST"):
            parse_steps(text)
