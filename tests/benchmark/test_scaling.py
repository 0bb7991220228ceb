"""Growth with clips, videos and devices: its exponents on known curves, and a run at a microscopic size."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avshare_jax.benchmark import scaling
from avshare_jax.benchmark.__main__ import parse
from avshare_jax.settings import UserError
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


def test_exponents_of_known_powers_come_from_the_upper_half():
    sizes = np.array([1, 2, 4, 8, 16])
    seconds = np.where(sizes < 4, 7.0, 3.0 * sizes**1.5)
    curve = [
        (int(size), {"seconds a step": value, "TFLOP of the model": 0.1 * size**2, "GB to and from memory": 5.0})
        for size, value in zip(sizes, seconds, strict=True)
    ]
    found = scaling.exponents(curve)
    assert found == pytest.approx({"seconds a step": 1.5, "TFLOP of the model": 2.0, "GB to and from memory": 0.0})
    assert [size for size, _ in scaling.upper_half(curve)] == [4, 8, 16]
    assert [size for size, _ in scaling.upper_half(curve[:2])] == [1, 2]
    noisy = np.random.default_rng(0).normal(1.0, 0.01, 50)
    assert scaling.exponent(np.arange(1, 51), noisy * np.arange(1, 51) ** 0.8) == pytest.approx(0.8, abs=0.02)


def test_squares_overtake_the_cnns_where_they_should():
    parts = {scaling.CNNS: 100.0 * 50, scaling.ATTENTION: 0.5 * 50**2, scaling.PAIRS: 0.25 * 50**2, scaling.LAYERS: 1}
    found = scaling.crossings([(50, {f"TFLOP, {part}": number for part, number in parts.items()})])
    expected = {scaling.ATTENTION: 200, scaling.PAIRS: 400, "both together": 400 / 3}
    assert found == pytest.approx(expected)


def test_operations_grow_as_the_method_says(config):
    few, many = (scaling.operations(scaling.resize(config, *size)) for size in ((9, 2), (19, 4)))
    growth = {part: many[f"TFLOP, {part}"] / few[f"TFLOP, {part}"] for part in scaling.COLORS}
    assert growth[scaling.CNNS] == pytest.approx(19 * 4 / (9 * 2))
    assert growth[scaling.ATTENTION] == pytest.approx(2 * (20 / 10) ** 2)  # twice the videos, twice the tokens
    # Of 9 and 19 clips, 2 and 5 are masked; each is compared with all clips of the batch.
    assert growth[scaling.PAIRS] == pytest.approx((5 * 4) * (19 * 4) / ((2 * 2) * (9 * 2)))
    assert growth[scaling.LAYERS] < growth[scaling.PAIRS]
    for figures in (few, many):
        assert sum(figures[f"TFLOP, {part}"] for part in scaling.COLORS) == pytest.approx(figures["TFLOP of the model"])


def test_sizes_that_are_too_small_or_too_large_for_the_config_are_fitted(config):
    long = scaling.resize(config, 300, 2)
    assert long.model.positions == 301 and long.objectives.num_negatives == config.objectives.num_negatives == 4
    assert scaling.resize(config, 2, 2).objectives.num_negatives == 3
    with pytest.raises(UserError, match="at least 2"):
        scaling.resize(config, 1, 2)
    with pytest.raises(UserError, match="at least 2"):
        scaling.resize(config, 2, 1)


def test_sizes_are_numbers():
    assert parse(["scaling", "--clips=8,2,8", "--videos="]).clips == [2, 8]
    assert parse(["scaling", "--videos="]).videos == []
    assert parse(["scaling"]).clips[-1] == 300
    for wrong in ("0", "2;4"):
        with pytest.raises(SystemExit):
            parse(["scaling", f"--devices={wrong}"])


def test_a_run_gives_its_figures_and_its_picture(config, monkeypatch, tmp_path, capsys):
    """With a step that is quickly compiled, and on the one device that there is; the rest is real."""

    def compile_step(config, mesh, state, batch):
        def step(state, batch):
            means = [jnp.mean(x.astype(jnp.float32)) for x in batch.values()]
            return state, {"loss": sum(means)}

        return jax.jit(step).lower(state, batch).compile()

    counted = []

    def count_model(config):
        counted.append((config.data.num_clips, config.batch_size))
        number = config.data.num_clips * config.batch_size
        network = "jvp(PretrainingNetwork)/"
        return Counter({f"{network}visual_cnn/stem": 9 * number, f"{network}hqk": number, "jvp(bmd,nd->bmn)": number})

    picture = tmp_path / "scaling.png"
    monkeypatch.setattr(scaling, "load_pretraining_config", lambda _: config)
    monkeypatch.setattr(scaling, "compile_step", compile_step)
    monkeypatch.setattr(scaling, "count_model", count_model)
    flags = ["--clips=1,3,5", "--videos=2,4", "--devices=1", "--steps=1", "--repeats=2", f"--picture={picture}"]
    found = scaling.measure(parse(["scaling", *flags]))
    sizes = ["3 clips a video", "5 clips a video", "2 videos a batch", "4 videos a batch", "1 device"]
    assert [section for section in found if " by " not in section and "from which" not in section] == sizes
    medians = {"seconds a step", "core-seconds a step", "TFLOP of the model", f"TFLOP, {scaling.CNNS}"}
    for section in sizes:
        assert found[section].keys() >= {*medians, "seconds a step, least", "GB of arguments, by the compiler"}
        assert all(np.isfinite(value) for value in found[section].values())
    growth = found["exponents by clips a video, over 3, 5"]
    assert growth["TFLOP of the model"] == pytest.approx(1) and growth["seconds a step"] != 0
    assert sorted(counted) == [(3, 2), (3, 4), (5, 4)]  # each size once
    assert "left out: config.batch_size=4 and config.data.num_clips=1 must both" in capsys.readouterr().err
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_drawn_costs_no_figures(config, monkeypatch, tmp_path, capsys):
    def fail(*_):
        raise ValueError("Unknown symbol")

    monkeypatch.setattr(scaling, "load_pretraining_config", lambda _: config)
    monkeypatch.setattr(scaling, "count_model", lambda config: Counter({"visual_cnn": 12, "hqk": 2, "": 4}))
    monkeypatch.setattr(scaling, "draw", fail)
    flags = ["scaling", "--clips=2,3", "--videos=", "--devices=", "--count_only"]
    assert scaling.measure(parse([*flags, f"--picture={tmp_path / 'a.png'}"]))
    assert "a.png could not be drawn (ValueError: Unknown symbol)." in capsys.readouterr().err
    monkeypatch.setattr(scaling, "count_model", None)
    with pytest.raises(UserError, match=r"cannot be written \(Is a directory\)"):
        scaling.measure(parse([*flags, f"--picture={tmp_path}"]))


def test_operations_alone_take_no_steps(config, monkeypatch, tmp_path, drawn_texts):
    monkeypatch.setattr(scaling, "load_pretraining_config", lambda _: config)
    counts = {"visual_cnn": 12, "hqk": 2, "": 4}
    monkeypatch.setattr(scaling, "count_model", lambda config: Counter(counts))
    flags = ["--clips=2,3", "--videos=", "--devices=", "--count_only", f"--picture={tmp_path / 'operations.png'}"]
    found = scaling.measure(parse(["scaling", *flags]))
    crossings = found["clips a video from which there are more operations than in the CNNs"]
    reckoned = {scaling.ATTENTION: 3 * 12 / 2, scaling.PAIRS: 3 * 12 / 4, "both together": 3 * 12 / 6}
    assert crossings == pytest.approx(reckoned)
    assert not any("a step" in name for figures in found.values() for name in figures)
    assert (tmp_path / "operations.png").exists() and not any("mathdefault" in text for text in drawn_texts)


@pytest.mark.slow
def test_devices_that_are_not_there_are_simulated(config):
    config.model.update(fusion="late", rank=None, layer_sharing="all", transformer_sharing="all")
    both = scaling.measure_on(2, scaling.resize(config, 2, 4), steps=1, repeats=1)
    assert both.keys() >= {"seconds a step", "core-seconds a step", *list(scaling.DRAWN)[3:]}
    assert jax.device_count() == 1  # The others were of another process.
    with pytest.raises(UserError, match="batch_size=4 does not divide over 3 devices"):
        scaling.measure_on(3, config, steps=1, repeats=1)


def test_sizes_that_do_not_fit_are_left_out(config, capsys):
    def measure_size(clips, videos, devices):
        if clips > 2:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
        return {"seconds": 1.0}

    assert list(scaling.measure_curve(config, "clips", (2, 3), measure_size)) == [(2, {"seconds": 1.0})]
    assert "left out: It does not fit the memory of the devices" in capsys.readouterr().err
