"""How names and numbers stand in reports."""

import io
import warnings

import pytest
from matplotlib.figure import Figure

from avshare_jax.page_style import FIGURE_STYLE, MOST_LETTERS, figure_style, keep_units, short_name
from tests.hostile_names import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_drawn_as_text(name):
    with warnings.catch_warnings(), figure_style():
        warnings.simplefilter("error", append=True)  # After the style's own filter: nobody hears of missing letters.
        figure = Figure()
        text = figure.text(0.1, 0.5, short_name(name))
        figure.savefig(io.BytesIO(), format="png")
    assert not text.get_parse_math() and not text.get_usetex()


def test_only_long_names_are_cut_and_keep_both_ends():
    assert short_name("$5% vs $6%") == "$5% vs $6%" and short_name("狗 כלב _a") == "狗 כלב _a"
    assert short_name("a\nb\x1b\udcff") == "a b  "
    assert short_name("x" * MOST_LETTERS) == "x" * MOST_LETTERS
    cut = short_name("a folder/" + 50 * "x" + "/video.mp4")
    assert len(cut) == MOST_LETTERS and cut.startswith("a folder/") and "…" in cut and cut.endswith("/video.mp4")


def test_a_users_settings_of_matplotlib_do_not_turn_names_into_formulas():
    assert FIGURE_STYLE["text.parse_math"] is FIGURE_STYLE["text.usetex"] is False


def test_no_line_breaks_between_a_number_and_its_unit():
    assert keep_units("30.5 % of 1,200 s, 44,100 Hz") == "30.5&nbsp;% of 1,200&nbsp;s, 44,100&nbsp;Hz"
    assert keep_units("95 %–97 %, -20 dB.") == "95&nbsp;%–97&nbsp;%, -20&nbsp;dB."
    unchanged = "12 steps, 3 sounds, 100%, p { margin: 0 8px }"
    assert keep_units(unchanged) == unchanged
