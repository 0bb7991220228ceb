"""Training curves of several runs: what is read from workdirs, and what is drawn."""

import json
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from etils import epath

from avshare_jax.evaluation.curves import Curve, loss_of_guessing, main, plot_curves, read_curve
from avshare_jax.page_style import short_name
from avshare_jax.settings import UserError, load_config_file
from tests.hostile_names import NAMES

CONFIG = Path(__file__).parents[2] / "configs" / "pretrain.py"


def load(changes):
    return load_config_file(f"{CONFIG}:{changes}")


@pytest.fixture
def make_run(tmp_path):
    """Returns a function that writes the files of a run of the demo with given losses."""

    def make(name, losses, changes="demo"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(load(changes).to_json())
        rows = [{"step": 2 * place, "loss": loss, "mep/chance": 1 / 33} for place, loss in enumerate(losses)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


def test_start_and_end_are_means_of_a_tenth(make_run):
    losses = [16.0, 14.0, *[9.0] * 17, 4.0, 2.0]
    curve = read_curve(make_run("late_fusion", losses))
    assert curve.name == "late_fusion"
    assert curve.steps.tolist() == list(range(0, 42, 2)) and curve.losses.tolist() == losses
    assert curve.start == pytest.approx((16 + 14 + 9) / 3) and curve.end == pytest.approx((9 + 4 + 2) / 3)


def test_one_logged_step_is_start_and_end(make_run):
    curve = read_curve(make_run("short", [3.0]))
    assert curve.start == curve.end == 3.0


def test_steps_without_a_finite_loss_are_left_out(make_run):
    assert read_curve(make_run("broken", [5.0, None, 4.0])).steps.tolist() == [0, 4]


def test_a_downstream_run_has_no_such_curve(make_run):
    folder = make_run("downstream", [3.0])
    config = load_config_file(str(CONFIG.with_name("finetune_ucf101.py")))
    (folder / "config.json").write_text(config.to_json())
    with pytest.raises(UserError, match="is of a downstream task"):
        read_curve(folder)


def test_a_damaged_config_is_a_sentence(make_run):
    folder = make_run("damaged", [3.0])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"objectives": None}))
    with pytest.raises(UserError, match=r"config.json is damaged or was edited: .*config\.objectives"):
        read_curve(folder)


def test_a_run_that_was_recorded_before_a_field_has_its_default(make_run):
    folder = make_run("older", [3.0])
    whole, config = read_curve(folder), json.loads((folder / "config.json").read_text())
    del config["objectives"]["masked_weight"], config["model"]["fusion"]
    (folder / "config.json").write_text(json.dumps(config))
    older = read_curve(folder)
    assert (older.guessing, older.parameters) == (whole.guessing, whole.parameters)


@pytest.mark.parametrize(
    ("changes", "heads", "pairs"),
    [
        ("demo", 4, 2),
        ("demo,early_fusion", 2, 2),
        ("demo,late_fusion", 2, 2),
        ("demo,masked_embedding_only", 4, 0),
        ("demo,correct_pair_only", 0, 2),
        ("demo,objectives.multimodal_weight=0.5,objectives.pair_weight=2.0", 3, 4),
    ],
)
def test_loss_of_guessing(changes, heads, pairs):
    expected = heads * math.log(33) + pairs * math.log(2)
    assert loss_of_guessing(load(changes), 1 / 33) == pytest.approx(expected)


def test_parameters_are_those_of_the_run(make_run):
    # Full weights in 3 layers of width 96 and MLP 384: 4 projections, MLP, two LayerNorms; three Transformers.
    layer = 4 * (96 * 96 + 96) + 2 * 96 * 384 + 384 + 96 + 4 * 96
    assert read_curve(make_run("nothing", [1.0], "demo,nothing_shared")).parameters == 9 * layer
    assert read_curve(make_run("everything", [1.0], "demo,everything_shared")).parameters == layer


def curve(name, losses):
    return Curve(name, np.arange(len(losses)), np.asarray(losses, float), guessing=15.4, parameters=1)


@pytest.mark.parametrize(("number", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (6, 4, 2)])
def test_every_curve_has_a_panel(tmp_path, number, columns, rows):
    path = epath.Path(tmp_path) / "curves.png"
    plot_curves([curve(f"run {n}", np.linspace(15, 10, 30 + n)) for n in range(number)], path)
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.shape[1] == pytest.approx(110 * 3.4 * columns, abs=2)
    # A panel has blue in it, a place without one none.
    blue = (pixels[..., 2] - pixels[..., 0]) > 0.3
    height, width = blue.shape[0] // rows, blue.shape[1] // columns
    panels = [
        blue[row * height : (row + 1) * height - 60, column * width : (column + 1) * width].any()
        for row in range(rows)
        for column in range(columns)
    ]
    assert panels == [place < number for place in range(rows * columns)]


def test_runs_may_have_any_name(tmp_path, drawn_texts):
    plot_curves([curve(name, [3.0, 2.0]) for name in NAMES], epath.Path(tmp_path) / "curves.png")
    assert {short_name(name) for name in NAMES} <= set(drawn_texts)


def test_a_place_that_cannot_be_written_is_said_before_runs_are_read(tmp_path):
    with pytest.raises(SystemExit, match=r"cannot be written \(Is a directory\)"):
        main([str(tmp_path / "no run"), f"--output={tmp_path}"])


def test_command_line(make_run, tmp_path, capsys):
    runs = [make_run("recipe", [15.0, 12.0]), make_run("late_fusion", [9.0, 8.0], "demo,late_fusion")]
    main([*map(str, runs), f"--output={tmp_path / 'curves.png'}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == "| recipe | 94,560 | 15.00 → 12.00 | 15.37 |"
    assert lines[3].startswith("| late_fusion | ") and lines[3].endswith(" | 9.00 → 8.00 | 8.38 |")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_what_cannot_be_drawn_is_a_sentence(make_run, tmp_path):
    empty = make_run("empty", [])
    with pytest.raises(UserError, match="has logged no step"):
        read_curve(empty)
    for arguments, sentence in (
        ([str(tmp_path / "nothing"), f"--output={tmp_path / 'a.png'}"], "There is no run in"),
        (
            [str(make_run("run", [1.0])), f"--output={tmp_path / 'nowhere' / 'a.png'}"],
            r"a.png cannot be written \(No such",
        ),
    ):
        with pytest.raises(SystemExit, match=sentence):
            main(arguments)
