"""The log files, the clock and the console line."""

import json
import re
import subprocess
import sys
import time

import pytest
from etils import epath
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from avshare_jax.training import metrics
from avshare_jax.training.goodput import CHECKPOINTS, INPUT, STEPS, Goodput


def test_resumed_log_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": step / 3}) + "\n" for step in range(1, 6)]
    path.write_text("".join(lines) + '{"step": 6, "lo')
    files = metrics.MetricsFiles(tmp_path, start_step=3)
    files.write(4, {"loss": 0.5, "skipped": float("nan")})
    files.close()
    assert path.read_text() == "".join(lines[:3]) + '{"step": 4, "loss": 0.5, "skipped": null}\n'


@pytest.mark.parametrize("damaged", [b"[1]\n", b"5\n", b"{}\n", b'{"step": "2"}\n', b"\xff\xfe\n", b'{"step": NaN}\n'])
def test_damaged_lines_of_a_log_are_left_out(tmp_path, damaged):
    path, good = epath.Path(tmp_path) / "metrics.jsonl", b'{"step": 1}\n'
    path.write_bytes(good + damaged + good)
    assert metrics.kept_lines(path) == metrics.kept_lines(path, 3) == [good.decode()] * 2


def test_tensorboard_reads_a_run_that_goes_on(tmp_path):
    files = metrics.MetricsFiles(tmp_path, start_step=0)
    for step in (20, 40):
        files.write(step, {"loss": 1 / step, "mep/chance": float("nan")})
    found = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors("loss")] == [
        (20, pytest.approx(0.05)),
        (40, pytest.approx(0.025)),
    ]
    files.close()


def test_tensorflow_is_not_imported_before_there_is_something_to_log(tmp_path):
    code = (
        "import sys, avshare_jax.training.run as _\n"
        "from avshare_jax.training.metrics import MetricsFiles\n"
        f"MetricsFiles({str(tmp_path)!r}, start_step=0).close()\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_kill_while_lines_are_dropped_loses_none(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    write_text = epath.Path.write_text

    def killed(self, text, *args):
        write_text(self, text[:5], *args)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(epath.Path(path)), "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        metrics.MetricsFiles(tmp_path, start_step=1)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_progress_measures_speed_waiting_and_remaining_time(monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    goodput = Goodput(clock=lambda: now)
    goodput.turn_to(STEPS)
    progress = metrics.Progress(start_step=10, total_steps=20, clips_per_step=6, goodput=goodput)
    now = 2.0
    goodput.move(INPUT, 1.0)
    goodput.turn_to(CHECKPOINTS)
    now = 3.0  # 2 steps took 3 s
    goodput.turn_to(STEPS)
    goodput.finish_step(12, skipped=False)
    third = pytest.approx(1 / 3)
    assert progress.measure(12) == {
        "clips_per_second": 4.0,
        "data_wait_share": third,
        "checkpoint_share": third,
        "goodput_share": third,
        "eta_seconds": 12.0,
    }
    now = 4.0
    goodput.finish_step(14, skipped=False)
    assert progress.measure(14) == {
        "clips_per_second": 12.0,
        "data_wait_share": 0.0,
        "checkpoint_share": 0.25,
        "goodput_share": 0.5,
        "eta_seconds": 6.0,
    }


def test_a_run_that_waits_for_data_says_so_once(linear_config, tmp_path, monkeypatch, capsys):
    """Of four logged steps of 1 s, devices waited in the given shares of each."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def sentences(*shares):
        nonlocal now
        goodput = Goodput(clock=lambda: now)
        goodput.turn_to(STEPS)
        with metrics.Reporter(linear_config, tmp_path, 0, (), dict, goodput) as reporter:
            for step, share in enumerate(shares, 1):
                now += 1.0
                goodput.move(INPUT, share)
                reporter.report(step, {"loss": 0.0, "skipped": 0.0, "skipped_in_a_row": 0})
        lines = capsys.readouterr().out.splitlines()
        return [(number, line) for number, line in enumerate(lines) if "does not keep up" in line]

    assert not sentences(0.5, 0.0, 0.5, 0.01)  # now and then
    [(number, sentence)] = sentences(0.01, 0.03, 0.25, 0.5)
    assert number == 3  # after the line of the third step
    assert "waited for data 25% of the time" in sentence and "config.data.num_workers=0" in sentence


@pytest.mark.parametrize(
    ("num_workers", "cores", "backend", "advice"),
    [
        (8, 16, "tpu", "8 worker processes .* Of its 16 cores, more can read: raise config.data.num_workers"),
        (1, 1, "gpu", "1 worker process .* no more cores than that .1.: use one that has"),
        (16, 16, "gpu", "16 worker processes .* no more cores than that .16."),
        (0, 2, "cpu", "threads of this process .* Its 2 cores also train"),
    ],
)
def test_what_can_be_done_about_slow_input(num_workers, cores, backend, advice):
    assert re.search(advice, metrics.slow_input(0.1, num_workers, cores, backend))


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")])
def test_duration(seconds, text):
    assert metrics.duration(seconds) == text
