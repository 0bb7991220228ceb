"""The command that imports and exports the released weights."""

import json

import numpy as np
import pytest
import safetensors.numpy

from avshare_jax import sizes
from avshare_jax.interop import avbert
from avshare_jax.settings import UserError
from avshare_jax.training.checkpoints import claim_workdir, load_config


def test_imported_workdir(workdir, state_dict, recipe, small):
    config = load_config(workdir)
    assert config.model == small[0]
    assert config.data.num_clips == 3 and config.data.name is None
    account = json.loads((workdir / "imported.json").read_text())
    named = [*account["used"], *(name for names in account["ignored"].values() for name in names)]
    assert len(named) == len(set(named)) == 983
    assert state_dict.keys() - set(account["used"]) == {name for name in state_dict if name.endswith(".base")}
    # Nothing is trained on in it.
    with pytest.raises(UserError, match="another run"):
        claim_workdir(workdir, config, {"name": "demo", "fingerprint": "f00d"})


@pytest.mark.parametrize("prefix", ["module.", "model.module.net."])
def test_a_prefix_of_all_names_is_left_out_and_said(tmp_path, state_dict, complete, recipe, workdir, prefix, capsys):
    np.savez(tmp_path / "avbert.npz", **{prefix + name: x for name, x in complete(state_dict).items()})
    avbert.import_checkpoint(tmp_path / "avbert.npz", str(tmp_path / "run"), recipe, heads=4)
    assert f"all names begin with {prefix}, which is left out" in capsys.readouterr().out
    account, plain = (json.loads((folder / "imported.json").read_text()) for folder in (tmp_path / "run", workdir))
    assert account == plain | {"prefix": prefix}


def test_long_lists_of_names_are_cut(tmp_path, state_dict):
    np.savez(
        tmp_path / "avbert.npz", **{f"{number % 2}.{name}": x for number, (name, x) in enumerate(state_dict.items())}
    )
    with pytest.raises(SystemExit, match=r"; and [1-9],?\d+ more\.$") as ending:
        avbert.main([str(tmp_path / "avbert.npz"), "--heads=4", f"--workdir={tmp_path / 'run'}"])
    assert len(str(ending.value)) < 1500 and str(ending.value).count("missing") == 10


def test_the_public_functions_are_where_they_are_documented(state_dict, small):
    config, variables = avbert.from_torch(state_dict, heads=4)
    assert config == small[0]
    tensors = avbert.to_torch(config, variables)
    for name, tensor in state_dict.items():
        np.testing.assert_array_equal(tensors[name], tensor, err_msg=name)


def test_exported_checkpoint(workdir, state_dict, tmp_path, capsys):
    path = tmp_path / "new" / "ours.safetensors"
    avbert.main([f"--workdir={workdir}", f"--export={path}"])
    assert "983 tensors" in capsys.readouterr().out
    written = safetensors.numpy.load_file(path)
    for name, tensor in state_dict.items():
        assert written[name].dtype == tensor.dtype, name
        np.testing.assert_array_equal(written[name], tensor, err_msg=name)


@pytest.mark.slow
def test_full_size_checkpoint(tmp_path, released_shapes, complete, capsys):
    random = np.random.default_rng(0)
    state_dict = {name: random.standard_normal(shape, np.float32) for name, shape in released_shapes.items()}
    state_dict |= {name: np.eye(len(x), dtype=np.float32) for name, x in state_dict.items() if name.endswith(".base")}
    tensors = complete(state_dict)
    assert len(tensors) == 983
    source, target, workdir = (tmp_path / name for name in ("avbert.safetensors", "back.safetensors", "run"))
    safetensors.numpy.save_file(tensors, source)
    avbert.main([str(source), f"--workdir={workdir}"])
    printed = capsys.readouterr().out
    assert "holds 983 tensors" in printed and "641 used: 43,778,080 parameters, 80,448 running" in printed
    assert all(f"{count} ignored" in printed for count in (18, 114, 210))
    model = load_config(workdir).model
    released = sizes.base()
    released.update(positions=22, dtype="float32")
    assert model == released

    avbert.main([f"--workdir={workdir}", f"--export={target}"])
    written = safetensors.numpy.load_file(target)
    assert written.keys() == tensors.keys()
    for name in released_shapes:
        np.testing.assert_array_equal(written[name], tensors[name], err_msg=name)
    for path in (source, target):  # 200 MB each
        path.unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.npz"], "no file none.npz"),
        (["avbert.npz", "--heads=5"], "5 heads do not divide"),
        (["avbert.npz", "--heads=4", "--config=configs/pretrain.py"], "cuts 30 clips, but the network has"),
        (["avbert.npz", "--heads=4", "--config=configs/pretrain.py:nonsense"], "nonsense"),
        (["--export=ours.npz"], "something.safetensors"),
        (["--export=ours.safetensors"], "no run"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path, state_dict, arguments, words):
    if arguments[0] == "avbert.npz":
        np.savez(tmp_path / "avbert.npz", **state_dict)
        arguments = [str(tmp_path / "avbert.npz"), *arguments[1:]]
    with pytest.raises(SystemExit, match=words):
        avbert.main([*arguments, f"--workdir={tmp_path / 'run'}"])


def test_a_workdir_in_use_is_not_overwritten(workdir, state_dict, tmp_path):
    np.savez(tmp_path / "avbert.npz", **state_dict)
    with pytest.raises(SystemExit, match="holds a run already"):
        avbert.main([str(tmp_path / "avbert.npz"), f"--workdir={workdir}", "--heads=4"])


def test_a_file_that_cannot_be_written_is_said_before_the_network_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(avbert.workdirs, "read_network", None)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"file cannot be written \(File exists\)"):
        avbert.main([f"--export={tmp_path / 'file' / 'a.safetensors'}", f"--workdir={tmp_path}"])
