"""The table holds every measure once, in the right columns and units."""

from avshare_jax.evaluation.summary import format_table, format_value, summary


def test_rows_hold_the_measures(made_up_evaluation):
    sections = summary(made_up_evaluation)
    objectives, probe, neighbors, retrieval, *by_features = sections.values()
    assert [len(rows) for rows in sections.values()] == [11, 9, 9, 10, 8, 8]
    assert ["32" in title or "40" in title for title in sections] == [True] * 6  # numbers of videos
    assert by_features[0][0].trained == retrieval[0].trained
    row = next(row for row in objectives if row.measure == "MEP top-1 against its negatives: audio")
    assert (row.trained, row.random, row.chance) == (0.27, 0.05, 1 / 33)
    both = next(row for row in probe if row.measure == "unimodal Transformer: visual")
    assert (both.chance, both.ceiling) == (1 / 8, 0.5)
    found = made_up_evaluation["linear_probe"]["targets"]["class"]
    assert both.trained_interval == found["intervals"]["trained"]["unimodal"]["visual"]
    assert neighbors[0].trained == made_up_evaluation["neighbors"]["targets"]["class"]["trained"]["cnn"]["visual"]
    median = next(row for row in retrieval if "median" in row.measure)
    ends = made_up_evaluation["retrieval"]["intervals"]["random"]["video_to_audio"]["median_rank"]
    assert (median.chance, median.random_interval) == (20.5, ends)


def test_unlabelled_data_has_no_probe_rows(made_up_evaluation):
    assert len(summary(made_up_evaluation | {"linear_probe": None, "neighbors": None})) == 4


def test_late_fusion_has_rows_for_what_it_has(late_evaluation):
    objectives, probe, neighbors, *_ = summary(late_evaluation).values()
    assert [len(rows) for rows in (objectives, probe, neighbors)] == [7, 6, 6]
    assert not any("multimodal" in row.measure for rows in (objectives, probe, neighbors) for row in rows)


def test_imported_weights_have_probe_rows_only(made_up_evaluation):
    titles = list(summary(made_up_evaluation | {"heldout": None, "retrieval": None}))
    assert titles[0].startswith("Linear probe, accuracy of the class")
    assert titles[1].startswith("Nearest neighbors, accuracy of the class")
    assert titles[2].startswith("Retrieval by features, CNN, among 40")


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
    row = summary(made_up_evaluation)["Retrieval among 40 test videos"][0]
    line = next(line for line in table.splitlines() if row.measure in line)
    low, high = row.trained_interval
    assert f"{100 * low:.1f}–{100 * high:.1f}" == line[heads.index("95 %") :].split()[0]
