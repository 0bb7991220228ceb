"""The table holds every measure once, in the right columns and units."""

from avshare_jax.evaluation.summary import format_table, format_value, summary


def test_rows_hold_the_measures(made_up_evaluation):
    sections = summary(made_up_evaluation)
    objectives, probe, retrieval = sections.values()
    assert [len(rows) for rows in sections.values()] == [11, 9, 10]
    assert ["32" in title or "40" in title for title in sections] == [True] * 3  # numbers of videos
    row = next(row for row in objectives if row.measure == "MEP top-1 against its negatives: audio")
    assert (row.trained, row.random, row.chance) == (0.27, 0.05, 1 / 33)
    both = next(row for row in probe if row.measure == "unimodal Transformer: visual")
    assert (both.chance, both.ceiling) == (1 / 8, 0.5)
    assert next(row for row in retrieval if "median" in row.measure).chance == 20.5


def test_unlabelled_data_has_no_probe_rows(made_up_evaluation):
    assert len(summary(made_up_evaluation | {"linear_probe": None})) == 2


def test_late_fusion_has_rows_for_what_it_has(late_evaluation):
    objectives, probe, _ = summary(late_evaluation).values()
    assert [len(rows) for rows in (objectives, probe)] == [7, 6]
    assert not any("multimodal" in row.measure for rows in (objectives, probe) for row in rows)


def test_imported_weights_have_probe_rows_only(made_up_evaluation):
    (title,) = summary(made_up_evaluation | {"heldout": None, "retrieval": None})
    assert title.startswith("Linear probe")


def test_values_are_percent_or_plain():
    assert format_value(0.1234, "%") == "12.3 %"
    assert format_value(20.5, "") == "20.5"
    assert format_value(None, "%") == ""


def test_table_lines_up(made_up_evaluation):
    table = format_table(summary(made_up_evaluation))
    line = next(line for line in table.splitlines() if "CPP accuracy: BOS" in line)
    assert line.split()[-6:] == ["75.0", "%", "50.0", "%", "50.0", "%"]
    heads = next(line for line in table.splitlines() if "trained" in line and "ceiling" in line)
    assert line.index("75.0 %") + len("75.0 %") == heads.index("trained") + len("trained")
