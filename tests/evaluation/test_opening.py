"""The data set of a run, by name and fingerprint."""

from types import SimpleNamespace

import pytest
from ml_collections import ConfigDict

from avshare_jax.evaluation import opening
from avshare_jax.settings import UserError


def test_a_run_on_several_data_sets_is_evaluated_on_the_first(tmp_path, monkeypatch):
    dataset = SimpleNamespace(name="demo", fingerprint="f00d")
    monkeypatch.setattr(opening, "open_dataset", lambda data_dir, name: dataset if name == dataset.name else None)
    monkeypatch.setattr(opening, "check_frontend", lambda dataset, frontend: None)
    data = ConfigDict({"name": "demo+more", "data_dir": "data", "frontend": {}})
    trained_on = {"name": "demo+more", "fingerprint": "f00d+beef"}
    assert opening.open_known_dataset(data, tmp_path, trained_on) is dataset
    assert opening.trained_fingerprint(trained_on, "more") == "beef"
    assert opening.trained_fingerprint(trained_on, "other") is None
    dataset.fingerprint = "cafe"
    with pytest.raises(UserError, match="with fingerprint f00d, but demo in .* has cafe"):
        opening.open_known_dataset(data, tmp_path, trained_on)
