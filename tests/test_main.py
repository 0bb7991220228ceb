"""The training binary as a user runs it: real processes, a data set on disk, a microscopic network."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from etils import epath

from avshare_jax.data.frontend import FrontEnd
from avshare_jax.data.records import Contents, write_dataset
from avshare_jax.training.goodput import (
    CHECKPOINTS,
    COMPILATION,
    DATASET,
    DOWNTIME,
    RESTORE,
    START_UP,
    STEPS,
    read_lines,
    summarize,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
FRONTEND = FrontEnd(fps=4.0, short_side=20, sample_rate=1_000, n_fft=100, hop_length=50, mels=16)
OVERRIDES = {
    "data.name": "noise",
    "data.num_clips": 3,
    "data.frames_per_clip": 2,
    "data.frame_stride": 2,
    "data.mel_frames": 16,
    "data.min_short_side": 16,
    "data.max_short_side": 20,
    "data.crop": 16,
    "data.num_workers": 0,  # the killed run gets one
    **{f"data.frontend.{name}": value for name, value in vars(FRONTEND).items()},
    "model.hidden": 16,
    "model.mlp": 32,
    "model.heads": 2,
    "model.layers": 1,
    "model.rank": 4,
    "model.visual_cnn.width": 4,
    "model.visual_cnn.stage_sizes": "(1,)",
    "model.visual_cnn.temporal_kernels": "(3,)",
    "model.audio_cnn.width": 4,
    "model.audio_cnn.stage_sizes": "(1,)",
    "model.audio_cnn.separable_stages": 1,
    "objectives.num_negatives": 4,
    "batch_size": 4,
    "total_steps": 120,
    "log_every": 1,
    "checkpoint_every": 20,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where data set, runs and compiled programs of this module's processes are."""
    directory = tmp_path_factory.mktemp("main")
    random = np.random.default_rng(0)

    def record(split, number):
        images = random.integers(0, 256, (20, 20, 24, 3), np.uint8)
        return {
            "video_id": f"{split}_{number}",
            "source_id": f"{split}_{number}",
            "frames": [simplejpeg.encode_jpeg(image) for image in images],
            "log_mel": random.normal(size=(100, FRONTEND.mels)).astype(np.float32),
            "has_video": True,
            "has_audio": True,
            "labels": (),
        }

    splits = {split: [record(split, number) for number in range(6)] for split in ("train", "test")}
    write_dataset("noise", directory / "data", splits, Contents(FRONTEND, jpeg_quality=90))
    return directory


def start(folder, workdir, *arguments, devices=1, **changes):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "HOME": str(folder),
    }
    overrides = {**OVERRIDES, "data.data_dir": "~/data", **{k.replace("__", "."): v for k, v in changes.items()}}
    return subprocess.Popen(
        [
            *(sys.executable, "main.py", "--config=configs/pretrain.py:demo", f"--workdir=~/{workdir}"),
            *(f"--config.{name}={value}" for name, value in overrides.items()),
            *arguments,
        ],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Waits for a process, far longer than it should take; returns its exit code, output and errors."""
    try:
        output, errors = process.communicate(timeout=900)
    finally:
        process.kill()
    return process.returncode, output, errors


def learned(workdir):
    """The lines of metrics.jsonl without what depends on the clock."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.endswith(("per_second", "share", "eta_seconds"))} for line in lines]


@pytest.fixture(scope="module")
def whole_run(folder):
    """Exit code, output and errors of an uninterrupted run in `whole`."""
    return finish(start(folder, "whole"))


def test_run_says_its_plan_trains_and_says_how_to_evaluate(whole_run, folder):
    code, output, errors = whole_run
    assert (code, errors) == (0, "")
    plan, steps = output.split("Compiling")
    for words in ("data=1", "transformer", "with nothing shared", "6 in train", "80 epochs", "whole"):
        assert words in plan
    assert "step 120/120" in steps
    assert f"compiled    programs are kept in {folder / 'compiled'}" in plan
    assert list((folder / "compiled").rglob("jit_step-*"))
    assert steps.endswith(f"eval.py --config=configs/eval.py --workdir={folder / 'whole'}\n")
    assert [line["step"] for line in learned(folder / "whole")] == list(range(1, 121))
    assert all(np.isfinite(line["loss"]) for line in learned(folder / "whole"))


def test_killed_run_resumes_with_bit_identical_losses(whole_run, folder):
    # Its worker reads the same batches, and must not outlive it: then the pipes would stay open and finish would fail.
    process = start(folder, "killed", data__num_workers=1)
    while not (folder / "killed" / "checkpoints" / "20").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert finish(process)[0] == -signal.SIGKILL
    assert not (folder / "killed" / "checkpoints" / "120").exists()

    code, output, errors = finish(start(folder, "killed"))
    assert code == 0, errors
    assert "Resuming from the checkpoint of step" in output
    assert learned(folder / "killed") == learned(folder / "whole")

    seconds = summarize(read_lines(epath.Path(folder / "killed" / "goodput.jsonl")))
    assert all(seconds[cause] > 0 for cause in (STEPS, START_UP, DATASET, COMPILATION, RESTORE, CHECKPOINTS, DOWNTIME))
    assert "Goodput: " in output and output.index("Goodput: ") > output.index("step 120/120")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model__hidden": 32}, "model.hidden is 16 and not 32"),
        ({"data__name": "voices"}, "no data set"),
        ({"data__frontend__mels": 8}, "mels is 16 in the data set and 8 in the config"),
        ({"log_every": 0}, "config.log_every=0 must be at least 1"),
        ({"mesh__data": 3}, "the sizes must multiply to 1"),
        ({"data__num_clip": 8}, "the nearest is 'data.num_clips'"),
    ],
)
def test_mistakes_get_one_sentence(whole_run, folder, changes, words):
    code, _, errors = finish(start(folder, "whole", **changes))
    assert code == 1
    assert words in errors and len(errors.splitlines()) == 1
