"""The loop: resuming, logging, and what happens where the loss is not finite, on a task that takes no time."""

import json
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from avshare_jax.settings import UserError
from avshare_jax.training import checkpoints, hosts, loop, mesh
from avshare_jax.training.goodput import COMPILATION, INPUT, RESTORE, STEPS, Goodput


@pytest.fixture
def train(linear_config, linear_task, step_batches):
    """Trains the linear task; returns the logged lines as a list of dictionaries."""

    def run(workdir, bad=(), **changes):
        config = linear_config.copy_and_resolve_references()
        config.update(changes)
        identity = {"name": "lines", "fingerprint": "1"}
        try:
            loop.train(
                config,
                workdir,
                task=linear_task,
                make_batches=step_batches(bad),
                dataset_identity=identity,
                mesh=mesh.make_mesh(config.mesh),
                shown_metrics=("largest_error",),
            )
        finally:
            lines = (workdir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return run


def learned(lines):
    """Drops what depends on the clock."""
    return [{k: v for k, v in line.items() if not k.endswith(("per_second", "share", "eta_seconds"))} for line in lines]


def test_loss_falls_and_each_step_is_logged_once(train, tmp_path, capsys):
    lines = train(tmp_path, total_steps=200)
    assert [line["step"] for line in lines] == list(range(1, 201))
    assert lines[-1]["loss"] < 0.05 * lines[0]["loss"]
    assert checkpoints.latest_step(tmp_path) == 200
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
    output = capsys.readouterr().out
    assert "step 200/200  loss" in output and "largest_error" in output and "ETA 0s" in output


def test_interrupted_run_goes_on_with_identical_numbers(train, tmp_path):
    whole = train(tmp_path / "whole")
    # Ends after step 7, whose checkpoint was not due; the lines of steps 5 to 7 are written a second time.
    with pytest.raises(UserError):
        train(tmp_path / "parts", bad=(5, 6), max_nonfinite_steps=2)
    assert checkpoints.latest_step(tmp_path / "parts") == 4
    assert learned(train(tmp_path / "parts")) == learned(whole)
    assert checkpoints.latest_step(tmp_path / "parts") == 8


@pytest.mark.parametrize("failure", ["", "The checkpoint of step 5 could not be written."])
def test_what_is_called_saved_is_on_the_disk(train, tmp_path, monkeypatch, failure):
    save, finish = checkpoints.Checkpoints.save, checkpoints.Checkpoints.finish_last
    finished, said = [], []

    def finish_last(self):
        finish(self)
        finished.append(checkpoints.latest_step(tmp_path))
        return failure if finished[-1] == 5 else ""

    monkeypatch.setattr(checkpoints.Checkpoints, "finish_last", finish_last)
    monkeypatch.setattr(
        checkpoints.Checkpoints, "save", lambda *given: (save(*given), signal.raise_signal(signal.SIGTERM))
    )
    monkeypatch.setattr(loop, "print", lambda text, **_: said.append((text, finished[-1:])), raising=False)
    with pytest.raises(SystemExit):
        train(tmp_path)
    words = failure or "Told to end: step 5 is saved."
    assert said[-1] == (f"{words} The same command goes on from there.", [5])


def test_a_warning_is_heeded_while_it_trains_and_reaches_others_afterwards(train, tmp_path, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append("afterwards"))
    save = checkpoints.Checkpoints.save
    try:
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as ending:
            patched.setattr(
                checkpoints.Checkpoints, "save", lambda *given: (save(*given), signal.raise_signal(signal.SIGTERM))
            )
            train(tmp_path)
        assert ending.value.code == hosts.RESTART and not heard
        assert checkpoints.latest_step(tmp_path) == 5  # The one after that of step 4.
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["afterwards"]
        train(tmp_path)
        train(tmp_path)  # Nothing to do.
        signal.raise_signal(signal.SIGTERM)
        assert heard == ["afterwards"] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_second_training_is_refused_and_harms_nothing(linear_config, linear_task, step_batches, train, tmp_path):
    """It is started while the first one trains, between its checkpoints."""
    expected = train(tmp_path / "alone")
    refused = []

    def make_batches(start_step):
        for step, batch in enumerate(step_batches()(start_step)):
            if step == 6:
                with pytest.raises(UserError, match=r"is being written by process \d+ on .* another --workdir"):
                    train(tmp_path / "run", total_steps=3)
                refused.append(step)
            yield batch

    loop.train(
        linear_config,
        tmp_path / "run",
        task=linear_task,
        make_batches=make_batches,
        dataset_identity={"name": "lines", "fingerprint": "1"},
        mesh=mesh.make_mesh(linear_config.mesh),
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert refused and learned(lines) == learned(expected)
    assert checkpoints.latest_step(tmp_path / "run") == 8


def test_finished_run_does_nothing(train, tmp_path, capsys):
    before = train(tmp_path)
    assert train(tmp_path) == before
    assert "Nothing to do" in capsys.readouterr().out


def flip_a_byte(checkpoint):
    """In the middle of the largest file, where the arrays are."""
    path = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_finished_run_whose_last_checkpoint_is_damaged_is_repaired(train, tmp_path, capsys):
    before = train(tmp_path)
    flip_a_byte(tmp_path / "checkpoints" / "8")
    assert learned(train(tmp_path)) == learned(before)
    said = capsys.readouterr().out
    assert "Resuming from the checkpoint of step 4" in said and "Nothing to do" not in said
    assert (tmp_path / "damaged" / "8").is_dir() and checkpoints.latest_step(tmp_path) == 8
    train(tmp_path)
    assert "Nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["nothing", "a part", "another step"])
def test_a_folder_is_not_a_checkpoint_because_of_its_name(train, tmp_path, capsys, content):
    train(tmp_path, total_steps=4)
    imposter = tmp_path / "checkpoints" / "999999999"
    if content == "another step":
        shutil.copytree(tmp_path / "checkpoints" / "4", imposter)
    else:
        (imposter / "variables" if content == "a part" else imposter).mkdir(parents=True)
        assert checkpoints.latest_step(tmp_path) == 4 and checkpoints.saved_steps(tmp_path) == [4]
    assert [line["step"] for line in train(tmp_path)] == list(range(1, 9))
    assert "Resuming from the checkpoint of step 4" in capsys.readouterr().out
    assert checkpoints.latest_step(tmp_path) == 8 and (tmp_path / "damaged" / "999999999").is_dir()


def test_not_finite_step_is_skipped_counted_and_reported(train, tmp_path, capsys):
    lines = train(tmp_path, bad=(2, 5))
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1, 1, 2, 2, 2]
    assert [line["loss"] is None for line in lines] == [step in (2, 5) for step in range(8)]
    assert "step 3: the loss or its gradient is not finite" in capsys.readouterr().out


def test_run_ends_after_too_many_not_finite_steps_in_a_row(train, tmp_path):
    with pytest.raises(UserError, match=r"not finite for 3 steps in a row, up to step 7.*learning_rate"):
        train(tmp_path, bad=(1, 4, 5, 6))
    # What came before is not lost, and the bad steps changed nothing.
    assert checkpoints.latest_step(tmp_path) == 4


def test_checkpoints_are_kept_as_configured(train, tmp_path):
    train(tmp_path, total_steps=11, checkpoint_every=3)
    steps = {int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {9, 11}


def test_a_finished_run_keeps_its_config(train, tmp_path, capsys):
    train(tmp_path)
    before = (tmp_path / "config.json").read_text()
    train(tmp_path, total_steps=2)
    assert "Nothing to do" in capsys.readouterr().out
    assert (tmp_path / "config.json").read_text() == before


def test_waiting_for_data_counts_from_when_the_devices_are_done(linear_config, linear_task, step_batches, tmp_path):
    """A step takes next to nothing here, so that all of the 0.1 s before each of 7 batches is waiting."""

    def slow_batches(start_step):
        for batch in step_batches()(start_step):
            yield batch
            time.sleep(0.1)

    goodput = Goodput()
    loop.train(
        linear_config,
        tmp_path,
        task=linear_task,
        make_batches=slow_batches,
        dataset_identity={"name": "lines", "fingerprint": "1"},
        mesh=mesh.make_mesh(linear_config.mesh),
        goodput=goodput,
    )
    seconds = goodput.of_run()
    assert seconds[INPUT] > 0.35 and seconds[INPUT] + seconds[STEPS] >= 0.7
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any(line["data_wait_share"] > 0.2 for line in lines)
    assert all(0 <= line["goodput_share"] <= 1 and 0 <= line["checkpoint_share"] <= 1 for line in lines)


def test_input_that_is_there_in_time_is_no_waiting():
    goodput = Goodput()
    goodput.turn_to(STEPS)
    working = threading.Event()
    still_computing = SimpleNamespace(block_until_ready=lambda: working.wait(5))
    watcher = ThreadPoolExecutor(1)
    loop.next_batch(iter([{}]), {"loss": still_computing}, watcher, goodput)
    working.set()
    assert goodput.of_this_process().get(INPUT, 0.0) == 0.0


def test_reading_weights_to_start_from_counts_as_restoring(linear_config, linear_task, step_batches, tmp_path):
    def read(state):
        time.sleep(0.2)
        return state

    goodput = Goodput()
    loop.train(
        linear_config,
        tmp_path,
        task=linear_task,
        make_batches=step_batches(),
        dataset_identity={"name": "lines", "fingerprint": "1"},
        mesh=mesh.make_mesh(linear_config.mesh),
        start_from=read,
        goodput=goodput,
    )
    seconds = goodput.of_run()
    assert seconds[RESTORE] >= 0.2 and seconds[COMPILATION] > 0


def test_a_hanging_device_does_not_keep_the_loop_from_ending():
    device = threading.Event()
    with pytest.raises(KeyboardInterrupt), loop.watching() as watcher:
        watching = watcher.submit(device.wait, 10)
        raise KeyboardInterrupt
    assert not watching.done()
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("watcher")]
    device.set()
    thread.join(5)
    assert not thread.is_alive()  # As soon as nothing hangs.


def test_what_is_measured_of_the_input_is_logged(linear_config, linear_task, step_batches, tmp_path):
    counts = iter(range(100))
    loop.train(
        linear_config,
        tmp_path,
        task=linear_task,
        make_batches=step_batches(),
        dataset_identity={"name": "lines", "fingerprint": "1"},
        mesh=mesh.make_mesh(linear_config.mesh),
        measure_input=lambda: {"unreadable_records": next(counts)},
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["unreadable_records"] for line in lines] == list(range(8))
