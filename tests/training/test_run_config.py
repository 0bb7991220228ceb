"""A run's config is read back whole, whichever version recorded it, and damage is a sentence."""

import json

import pytest

from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import check_run, claim_workdir
from avshare_jax.training.run_config import read_config
from configs.pretrain import get_config

IDENTITY = {"name": "demo", "fingerprint": "abc"}
LATER = {
    "model": {"fusion": "mid", "layer_sharing": "all"},
    "augment": {"modality_dropout": 0.0},
    "memory": {"remat": "none", "clip_chunks": 1, "accumulation_steps": 1},
    "objectives": {"negative_groups": 1, "masked_weight": 1.0},
}


def edit(workdir, change):
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_what_an_older_run_lacks_is_how_it_was_trained(tmp_path):
    config = get_config("demo")
    claim_workdir(tmp_path, config, IDENTITY)

    def remove(values):
        for group, fields in LATER.items():
            for name in fields:
                del values[group][name]

    edit(tmp_path, remove)
    assert read_config(tmp_path) == config
    assert check_run(tmp_path, config, IDENTITY) == []
    config.augment.modality_dropout = 0.5
    assert check_run(tmp_path, config, IDENTITY) == ["augment.modality_dropout was None and is now 0.5"]


@pytest.mark.parametrize(
    ("group", "field", "value", "words"),
    [
        ("model", "fusion", "mdi", "config.model.fusion='mdi' must be early, mid or late; the nearest is 'mid'"),
        ("model", "heads", "4", "config.model.heads='4' must be a whole number"),
        ("data", "frontend", [], "config.data.frontend"),
        ("objectives", "num_negatives", None, "config.objectives.num_negatives=None must be a whole number"),
    ],
)
def test_an_edited_config_is_a_sentence_that_names_the_file(tmp_path, group, field, value, words):
    claim_workdir(tmp_path, get_config("demo"), IDENTITY)
    edit(tmp_path, lambda values: values[group].update({field: value}))
    with pytest.raises(UserError) as error:
        read_config(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value) and words in str(error.value)
