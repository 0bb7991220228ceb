"""The log files, the clock and the console line."""

import itertools
import json
import time

import pytest
from etils import epath

from avshare_jax.training import metrics


def test_resumed_log_drops_later_and_broken_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": step / 3}) + "\n" for step in range(1, 6)]
    path.write_text("".join(lines) + '{"step": 6, "lo')
    files = metrics.MetricsFiles(tmp_path, start_step=3)
    files.write(4, {"loss": 0.5, "skipped": float("nan")})
    files.close()
    assert path.read_text() == "".join(lines[:3]) + '{"step": 4, "loss": 0.5, "skipped": null}\n'


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
    clock = itertools.count()  # every look at it is one second later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    progress = metrics.Progress(start_step=10, total_steps=20, clips_per_step=6)  # 0 s
    assert progress.next(iter(["batch"])) == "batch"  # 1 s to 2 s
    assert progress.measure(12) == {  # 3 s: 2 steps took 3 s
        "clips_per_second": 4.0,
        "data_wait_share": pytest.approx(1 / 3),
        "eta_seconds": 12.0,
    }
    assert progress.measure(14) == {"clips_per_second": 12.0, "data_wait_share": 0.0, "eta_seconds": 6.0}  # 4 s


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (185, "3m05s"), (7620, "2h07m")])
def test_duration(seconds, text):
    assert metrics.duration(seconds) == text
