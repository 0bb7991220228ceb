"""The command, and the parts that need a config, at a microscopic size: that they give their figures, not which."""

import jax
import numpy as np
import pytest

from avshare_jax.benchmark import checkpoint, compilation, parts, step
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


def test_step_gives_its_figures_without_a_data_set_too(config, monkeypatch, capsys, tmp_path):
    class Compiled:
        def __call__(self, state, batch):
            return state, {"loss": batch["log_mel"].sum()}

        def memory_analysis(self):
            return jax.jit(lambda: 0).lower().compile().memory_analysis()

    monkeypatch.setattr(step, "compile_step", lambda *_: Compiled())
    monkeypatch.setattr(step, "model_flops", lambda _: 3 * 10**12)
    config.data.data_dir = str(tmp_path)
    (figures,) = step.measure_config(config, steps=2, repeats=3).values()
    medians = {"seconds a step", "videos a second", "TFLOP/s of the model on each device"}
    assert_figures(figures, medians, {"GB of memory, by the compiler"})
    assert figures["TFLOP/s of the model on each device"] * figures["seconds a step"] == pytest.approx(3)
    assert "The real input is left out" in capsys.readouterr().err


def test_operations_of_the_model_never_count_recomputation(config):
    plain = step.model_flops(config)
    config.memory.update(remat="blocks", clip_chunks=3, accumulation_steps=2)
    assert step.model_flops(config) == plain > 0


@pytest.mark.slow
def test_parts_give_their_figures(config):
    found = {part.name: parts.measure_part(part, calls=1, repeats=1) for part in parts.parts_of(config)}
    assert list(found) == [
        *("visual CNN", "visual CNN, stem", "visual CNN, stage 1", "audio CNN"),
        *("visual Transformer", "audio Transformer", "multimodal Transformer"),
        *("negatives of one modality", "optimizer"),
    ]
    for figures in found.values():
        assert_figures(figures, {"ms"}, {"GFLOP", "GB to and from memory"})
        assert figures["GB to and from memory"] > 0
    whole = found["visual CNN"]["GFLOP"]
    assert whole == pytest.approx(sum(found[f"visual CNN, {part}"]["GFLOP"] for part in ("stem", "stage 1")), rel=0.02)


def test_figures_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(SystemExit, match="a folder that does not exist"):
        main(["compile", f"--json={tmp_path / 'no' / 'figures.json'}"])
    with pytest.raises(SystemExit, match=r"cannot be written \(Is a directory\)"):
        main(["compile", f"--json={tmp_path}"])


def test_downstream_configs_get_a_sentence():
    for part in ("step", "parts", "checkpoint"):
        with pytest.raises(SystemExit, match="is one of a downstream task"):
            main([part, "--config=configs/linear_esc50.py"])


def test_a_config_that_does_not_exist_gets_a_sentence():
    with pytest.raises(SystemExit, match="no config file"):
        main(["checkpoint", "--config=configs/pretrian.py"])


def test_unknown_part_names_those_there_are(capsys):
    with pytest.raises(SystemExit):
        parse(["inputs"])
    assert "checkpoint" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["checkpoint", "--repeats=0"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files"), "error: Too many files are open"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."), "error: It does not fit the memory"),
    ],
)
def test_shortages_end_with_a_sentence(monkeypatch, error, said):
    def fail(options):
        raise error

    monkeypatch.setattr(checkpoint, "measure", fail)
    with pytest.raises(SystemExit) as ending:
        main(["checkpoint"])
    assert ending.value.code.startswith(said)
