"""Every measurement of the input at a tiny size: that it runs and gives its figures, not which."""

import json

import numpy as np
import pytest

from avshare_jax.benchmark import input
from avshare_jax.benchmark.__main__ import main, parse
from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.synthetic import make_images, make_record

SIZES = ["--repeats=1", "--videos=1", "--seconds=1", "--records=40", "--workers=1", "--batches=20"]
MEDIANS = {
    "reading": {
        "clips a second and core, worker process",
        "clips a second and core, thread",
        "clips a second and core, decoding alone",
        "share of decoding alone, worker process",
        "share of decoding alone, thread",
    },
    "preparation": {
        "seconds of video a core-second",
        "seconds of video a core-second, decoding alone",
        "share of the time that is decoding",
    },
    "start": {"seconds to the first batch"},
    "memory": set(),
}
OTHERS = {
    "reading": {"bytes a frame"},
    "preparation": set(),
    "start": {"records", "worker processes"},
    "memory": {"MB after a tenth", "MB at the end", "MB at most", "batches"},
}


@pytest.fixture
def small(monkeypatch):
    """Reading with 2 clips of 4 frames instead of 480 frames."""
    whole = input.data_config
    monkeypatch.setattr(
        input, "data_config", lambda **changes: whole(**{"num_clips": 2, "frames_per_clip": 4} | changes)
    )


@pytest.mark.slow
@pytest.mark.parametrize("part", MEDIANS)
def test_each_part_gives_its_figures(part, small, tmp_path, capsys):
    file = tmp_path / "figures.json"
    main(["input", part, f"--json={file}", f"--directory={tmp_path}", *SIZES])
    found = json.loads(file.read_text())
    assert found.keys() == {"machine", part}
    assert {"processor", "cores", "python", "libraries", "commit"} <= found["machine"].keys()
    ends = {f"{name}, {end}" for name in MEDIANS[part] for end in ("least", "greatest")}
    assert found[part].keys() == MEDIANS[part] | OTHERS[part] | ends
    assert all(np.isfinite(value) and value > 0 for value in found[part].values())
    printed = capsys.readouterr().out
    assert all(name in printed for name in MEDIANS[part] | OTHERS[part])
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]  # the data is gone


def test_unknown_measurement_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        parse(["input", "readin"])
    assert "there is no readin: choose among reading, preparation, start, memory" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["input", "--videos=0"])
    with pytest.raises(SystemExit):
        parse(["input", "--workers=-1"])
    assert "argument --workers: -1 must be at least 0" in capsys.readouterr().err
    assert parse(["input", "--workers=0"]).workers == 0
    assert parse(["input"]).only == []


def test_synthetic_videos_move_and_records_are_whole():
    first, second = make_images(2, 36, 64, seed=0)
    assert first.shape == (36, 64, 3) and first.dtype == np.uint8 and not np.array_equal(first, second)
    record = make_record(3, FrontEnd(short_side=32), 8, 40)
    assert len(record["frames"]) == 8 and record["log_mel"].shape == (64, 80)  # half a second
