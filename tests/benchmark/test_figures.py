"""The table of a benchmark, and the machine in its header."""

from avshare_jax.benchmark import figures


def test_table_shows_least_and_greatest_behind_the_median():
    table = figures.format_table(
        {"cores": "2"}, {"start": {**figures.spread("seconds", [3.0, 1.0, 5.0]), "records": 1e5}}
    )
    assert table.splitlines()[0].split() == ["cores", "2"]
    assert table.splitlines()[3].split() == ["seconds", "3", "(1", "to", "5)"]
    assert table.splitlines()[4].split() == ["records", "100,000"]


def test_header_names_machine_devices_versions_and_commit():
    machine = figures.describe_machine(("optax", "av"))
    assert machine.keys() >= {"processor", "cores", "devices", "python", "libraries", "commit"}
    assert machine["devices"].endswith("x cpu")
    assert machine["libraries"].count("optax") == 1 and ", av " in machine["libraries"]
