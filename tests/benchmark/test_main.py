"""The parts that need a config, at a microscopic size: that they run and give their figures, not which."""

import json

import jax
import numpy as np
import pytest

from avshare_jax.benchmark.__main__ import main

MICROSCOPIC = (
    "demo,batch_size=4,data.num_clips=3,data.frames_per_clip=2,data.mel_frames=16,data.crop=16,data.frontend.mels=16,"
    "model.hidden=16,model.mlp=32,model.heads=2,model.layers=1,model.rank=4,model.visual_cnn.width=4,"
    "model.audio_cnn.width=4,model.audio_cnn.separable_stages=1,objectives.num_negatives=4"
)
CONFIG = f"configs/pretrain.py:{MICROSCOPIC}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "medians", "others"),
    [
        (
            ["checkpoint", f"--config={CONFIG}", "--directory={folder}"],
            {
                *("seconds, training stands still", "seconds, until on disk", "seconds, restore", "seconds, checksums"),
                "share of saving behind training",
            },
            {"MB of state", "MB on disk"},
        ),
        (
            ["compile", CONFIG],
            {"seconds, trace and lower", "seconds, compile", "seconds, from the cache"},
            {"MB in the cache"},
        ),
    ],
)
def test_each_part_gives_its_figures(arguments, medians, others, tmp_path, capsys):
    file = tmp_path / "figures.json"
    before = jax.config.jax_compilation_cache_dir
    main([*(argument.format(folder=tmp_path) for argument in arguments), "--repeats=2", f"--json={file}"])
    found = json.loads(file.read_text())[CONFIG]
    ends = {f"{name}, {end}" for name in medians for end in ("least", "greatest")}
    assert found.keys() == medians | others | ends
    assert all(np.isfinite(value) for value in found.values())
    assert found.get("seconds, from the cache", 0) < found.get("seconds, compile", 1)
    assert all(name in capsys.readouterr().out for name in ("commit", "devices"))
    assert [path.name for path in tmp_path.iterdir()] == [
        "figures.json"
    ] and jax.config.jax_compilation_cache_dir == before


def test_a_config_that_does_not_exist_gets_a_sentence():
    with pytest.raises(SystemExit, match="no config file"):
        main(["checkpoint", "--config=configs/pretrian.py"])
