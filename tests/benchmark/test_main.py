"""The command, and the parts that need a config, at a microscopic size: that they give their figures, not which."""

import jax
import numpy as np
import pytest

from avshare_jax.benchmark import checkpoint, compilation
from avshare_jax.benchmark.__main__ import main, parse
from configs.pretrain import get_config
from tests.test_main import OVERRIDES


@pytest.fixture
def config():
    microscopic = get_config("demo")
    numbers = {name: value for name, value in OVERRIDES.items() if not isinstance(value, str)}
    for cnn in ("visual_cnn", "audio_cnn"):
        numbers[f"model.{cnn}.stage_sizes"] = (1,)
    microscopic.update_from_flattened_dict(numbers | {"model.visual_cnn.temporal_kernels": (3,)})
    return microscopic


def assert_figures(found, medians, others):
    ends = {f"{name}, {end}" for name in medians for end in ("least", "greatest")}
    assert found.keys() == medians | others | ends
    assert all(np.isfinite(value) for value in found.values())


def test_checkpoint_gives_its_figures_and_leaves_nothing(config, tmp_path):
    found = checkpoint.measure_config(config, tmp_path, repeats=1)
    medians = {
        *("seconds, training stands still", "seconds, until on disk", "seconds, restore", "seconds, checksums"),
        "share of saving behind training",
    }
    assert_figures(found, medians, {"MB of state", "MB on disk"})
    assert found["seconds, training stands still"] <= found["seconds, until on disk"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_compile_gives_its_figures_and_the_second_time_reads_the_cache(config, monkeypatch):
    monkeypatch.setattr(jax, "clear_caches", lambda: None)  # Other tests would compile again.
    before = jax.config.jax_compilation_cache_dir
    found = compilation.measure_config(config, repeats=1)
    medians = {"seconds, trace and lower", "seconds, compile", "seconds, from the cache"}
    assert_figures(found, medians, {"MB in the cache"})
    assert found["MB in the cache"] > 0
    assert jax.config.jax_compilation_cache_dir == before


def test_a_config_that_does_not_exist_gets_a_sentence():
    with pytest.raises(SystemExit, match="no config file"):
        main(["checkpoint", "--config=configs/pretrian.py"])


def test_unknown_part_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        parse(["inputs"])
    assert "checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["checkpoint", "--repeats=0"])
