"""Where the time goes: a clock that is moved by hand, and several processes of a run one after the other."""

import json
import threading
import time

import pytest
from etils import epath

from avshare_jax.training import goodput
from avshare_jax.training.goodput import (
    CHECKPOINTS,
    COMPILATION,
    DATASET,
    DOWNTIME,
    INPUT,
    LOST,
    SKIPPED,
    START_UP,
    STEPS,
    Goodput,
    summarize,
)


class Clock:
    """Unix time and seconds of a process, moved by hand."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now

    def wall(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def start(clock):
    """Starts a process whose imports take 2 s."""

    def begin():
        clock.now += 2.0
        return Goodput(clock.now - 2.0, clock, clock.wall)

    return begin


def take(process, clock, steps, seconds, skipped=()):
    process.turn_to(STEPS)
    for step in steps:
        clock.now += seconds
        process.finish_step(step, step in skipped)


def of_file(workdir):
    return {cause: s for cause, s in summarize(goodput.read_lines(epath.Path(workdir) / "goodput.jsonl")).items() if s}


def test_every_second_belongs_to_one_cause(clock, start, tmp_path):
    with start() as process:
        process.turn_to(DATASET)
        clock.now += 3
        process.open(tmp_path, 0)
        process.turn_to(COMPILATION)
        clock.now += 5
        take(process, clock, (1, 2, 3, 4), 1.0, skipped=(3,))
        clock.now += 1.5
        process.move(INPUT, 0.5)
        process.finish_step(5, skipped=False)
        process.turn_to(CHECKPOINTS)
        clock.now += 0.25
    expected = {START_UP: 2, DATASET: 3, COMPILATION: 5, STEPS: 4, SKIPPED: 1, INPUT: 0.5, CHECKPOINTS: 0.25}
    assert {cause: s for cause, s in process.of_run().items() if s} == pytest.approx(expected)
    assert of_file(tmp_path) == pytest.approx(expected)
    assert sum(expected.values()) == clock.now - 1_000_000.0
    assert goodput.goodput_share(process.of_run()) == pytest.approx(4 / 15.75)


def test_steps_that_a_restart_repeats_are_lost_and_the_time_between_is_downtime(clock, start, tmp_path, capsys):
    killed = start()
    killed.open(tmp_path, 0)
    take(killed, clock, (1, 2, 3), 1.0)
    killed.write()  # as before a checkpoint of step 3
    take(killed, clock, (4, 5), 1.0)
    killed.write()
    clock.now += 0.75  # the step that was going on
    clock.now += 60
    with start() as second:
        second.open(tmp_path, 3)
        live = second.of_run()
        assert live[STEPS] == pytest.approx(3) and live[LOST] == pytest.approx(2)
        take(second, clock, (4, 5, 6), 1.0)
    expected = {START_UP: 4, STEPS: 6, LOST: 2, DOWNTIME: 60.75}
    assert of_file(tmp_path) == pytest.approx(expected)
    assert {cause: s for cause, s in second.of_run().items() if s} == pytest.approx(expected)
    assert sum(expected.values()) == clock.now - 1_000_000.0
    line = capsys.readouterr().out
    assert "Goodput: 8.2% of 73 s" in line and line.index("downtime 83.5%") < line.index("start-up 5.5%")


def test_a_line_in_whose_middle_a_restart_begins_is_lost_in_part(clock, start, tmp_path):
    killed = start()
    killed.open(tmp_path, 0)
    take(killed, clock, range(1, 11), 2.0)
    killed.write()
    with start() as second:
        second.open(tmp_path, 4)
        take(second, clock, (5,), 2.0)
    with start() as third:  # again from the same checkpoint: the second's step is lost as well
        third.open(tmp_path, 4)
    assert of_file(tmp_path) == pytest.approx({START_UP: 6, STEPS: 8, LOST: 14})


def test_a_damaged_checkpoint_costs_the_steps_after_the_one_before(clock, start, tmp_path):
    killed = start()
    killed.open(tmp_path, 0)
    take(killed, clock, (1, 2, 3, 4), 1.0)
    killed.write()
    with start() as second:
        second.open(tmp_path, 4)
        clock.now += 1
        second.open(tmp_path, 2)
        take(second, clock, (3, 4), 1.0)
    assert of_file(tmp_path) == pytest.approx({START_UP: 5, STEPS: 4, LOST: 2})
    assert second.of_run()[LOST] == pytest.approx(2)


@pytest.mark.parametrize(
    "damage",
    [
        *({"process": None}, {"step": "5"}, {"seconds": [1]}, {"seconds": {"steps": None}}, {"start_step": True}),
        {"seconds": {"steps": float("nan")}},
    ],
)
def test_damaged_lines_are_left_out(tmp_path, damage):
    good = {"process": 1.5, "start_step": 0, "step": 5, "seconds": {"steps": 2.0}}
    path = epath.Path(tmp_path) / "goodput.jsonl"
    path.write_text("\n".join(map(json.dumps, (good, {**good, **damage}, [good], {}, good))))
    assert goodput.read_lines(path) == [good, good]


def test_lines_cut_short_by_a_kill_are_left_out(clock, start, tmp_path):
    with pytest.raises(KeyboardInterrupt), start() as first:
        first.open(tmp_path, 0)
        take(first, clock, (1,), 1.0)
        raise KeyboardInterrupt
    path = tmp_path / "goodput.jsonl"
    path.write_text(path.read_text() + '{"process": 1000000.0, "st')
    with start() as second:
        second.open(tmp_path, 0)
        take(second, clock, (1,), 1.0)
    assert of_file(tmp_path) == pytest.approx({START_UP: 4, STEPS: 1, LOST: 1})
    assert path.read_text().count('"st\n{') == 1


def test_skipped_steps_that_a_restart_repeats_are_lost_too(clock, start, tmp_path):
    killed = start()
    killed.open(tmp_path, 0)
    take(killed, clock, range(1, 5), 1.0, skipped=(2, 4))
    killed.write()
    with start() as second:
        second.open(tmp_path, 2)
    assert of_file(tmp_path) == pytest.approx({START_UP: 4, STEPS: 1, SKIPPED: 1, LOST: 2})


def test_a_ledger_that_cannot_be_written_ends_nothing_and_is_made_up_for(clock, start, tmp_path, capsys):
    path, aside = tmp_path / "goodput.jsonl", tmp_path / "aside"
    with pytest.raises(KeyboardInterrupt), start() as first:
        first.open(tmp_path, 0)
        path.rename(aside)
        path.mkdir()
        take(first, clock, (1, 2), 1.0)
        first.write()
        first.write()
        assert capsys.readouterr().out == f"{path} cannot be written (Is a directory). Training goes on.\n"
        path.rmdir()
        path.write_text(aside.read_text() + '{"process": 1000000.0, "st')  # As a full disk leaves it.
        first.write()
        assert of_file(tmp_path) == pytest.approx({START_UP: 2, STEPS: 2})
        path.unlink()
        path.mkdir()
        raise KeyboardInterrupt


def test_the_thread_outlives_errors(start, tmp_path, monkeypatch):
    monkeypatch.setattr(goodput, "SECONDS_BETWEEN_LINES", 0.001)
    process, attempts, thrice = start(), [], threading.Event()

    def fail(text):
        attempts.append(text)
        if len(attempts) > 3:
            thrice.set()
        raise OSError("There is no room.")

    monkeypatch.setattr(process, "_append", fail)
    with process:
        process.open(tmp_path, 0)
        assert thrice.wait(5)


def test_slow_storage_does_not_hold_up_steps(start, tmp_path, monkeypatch):
    process = start()
    process.open(tmp_path, 0)
    writing, stalled = threading.Event(), threading.Event()
    monkeypatch.setattr(process, "_append", lambda text: (writing.set(), stalled.wait(10)))
    writer = threading.Thread(target=process.write)
    writer.start()
    assert writing.wait(5)
    steps = threading.Thread(target=lambda: (process.turn_to(STEPS), process.finish_step(1, False)), daemon=True)
    steps.start()
    steps.join(5)
    assert not steps.is_alive()
    stalled.set()
    writer.join()


def test_no_line_comes_after_the_last_one(start, tmp_path, monkeypatch):
    monkeypatch.setattr(goodput, "SECONDS_BETWEEN_LINES", 0.001)
    process, in_thread = start(), threading.Event()
    write = process.write

    def write_late(**how):
        if threading.current_thread() is not threading.main_thread():
            in_thread.set()
            time.sleep(0.02)
        write(**how)

    monkeypatch.setattr(process, "write", write_late)
    with process:
        process.open(tmp_path, 0)
        assert in_thread.wait(5)
    time.sleep(0.03)
    lines = goodput.read_lines(epath.Path(tmp_path) / "goodput.jsonl")
    assert len(lines) >= 3
    assert [line.get("done", False) for line in lines] == [False] * (len(lines) - 1) + [True]


def test_what_is_inside_belongs_to_another_cause_and_what_follows_to_the_one_before(clock, start):
    process = start()
    process.turn_to(COMPILATION)
    with process.during(CHECKPOINTS):
        clock.now += 2
    clock.now += 3
    assert process.of_this_process() == pytest.approx({START_UP: 2, COMPILATION: 3, CHECKPOINTS: 2})


def test_after_a_run_that_was_done_there_is_no_downtime(clock, start, tmp_path):
    with start() as first:
        first.open(tmp_path, 0)
        take(first, clock, (1,), 1.0)
    clock.now += 1e6
    with start() as longer:
        longer.open(tmp_path, 1)
    assert of_file(tmp_path) == pytest.approx({START_UP: 4, STEPS: 1})
    assert json.loads((tmp_path / "goodput.jsonl").read_text().splitlines()[-1])["done"] is True


def test_a_process_that_trains_nothing_leaves_nothing(start, tmp_path, capsys):
    with start():
        pass
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().out
