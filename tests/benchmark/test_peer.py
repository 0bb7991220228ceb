"""The network in PyTorch against the released one's figures and against ours, and the part that measures both."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from avshare_jax.benchmark import peer
from avshare_jax.benchmark.__main__ import main
from avshare_jax.interop import released_names
from avshare_jax.settings import UserError
from configs.pretrain import get_config

DATA = Path(__file__).parent.parent / "data"


def test_golden_figures():
    torch = pytest.importorskip("torch")
    from avshare_jax.benchmark.peer_network import PeerNetwork

    with np.load(DATA / "avbert_small.npz") as file:
        golden = dict(file)
    meta = json.loads(str(golden["meta"]))
    tensors = {name.removeprefix("param/"): x for name, x in golden.items() if name.startswith("param/")}
    config, variables = released_names.from_torch(tensors, heads=meta["heads"], layers=meta["layers"])
    network = PeerNetwork(config).eval()
    state_dict = released_names.to_torch(config, variables)
    network.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in state_dict.items()}, strict=True)
    with torch.no_grad():
        outputs = network(torch.from_numpy(golden["in/visual"]), torch.from_numpy(golden["in/audio"]))
    for name, tokens in outputs.items():
        expected = golden[f"out/{name}"].astype(np.float64)
        assert np.sqrt(np.mean((tokens.numpy() - expected) ** 2) / np.mean(expected**2)) < 1e-5, name


def test_parameters_at_the_papers_size():
    torch = pytest.importorskip("torch")
    from avshare_jax.benchmark.peer_network import PeerNetwork

    with torch.device("meta"):
        network = PeerNetwork(get_config("10s").model)
    assert sum(x.numel() for x in network.parameters()) == 43_778_080
    assert sum(x.numel() for x in network.transformer.parameters()) == 3_843_840


@pytest.fixture
def config(monkeypatch):
    """A network with each kind of block once, instead of the released numbers of blocks."""
    monkeypatch.setattr(released_names, "check_released", lambda _: None)
    small = get_config("10s,batch_size=2")
    small.data.update(num_clips=3, frames_per_clip=4, crop=24, mel_frames=16)
    small.data.frontend.mels = 16
    small.model.update(hidden=24, mlp=40, heads=4, layers=2, rank=6, positions=5)
    small.model.visual_cnn.update(width=4, stage_sizes=(2, 1), temporal_kernels=(1, 3))
    small.model.audio_cnn.update(width=4, stage_sizes=(2, 1), separable_stages=1)
    return small


def test_networks_agree_and_all_figures_are_there(config, monkeypatch, capsys):
    pytest.importorskip("torch")
    monkeypatch.setattr(peer, "Peer", without_compiler(peer.Peer))
    results = peer.measure_config(config, ("eager", "channels-last", "compiled"), repeats=2)
    told = capsys.readouterr().err.splitlines()
    assert "PyTorch, compiled is left out: there is no compiler." in told
    assert told[-1] == "forward and backward, training: turn 2 of 2 ..."
    names = ("ours", "PyTorch, eager", "PyTorch, channels-last")
    expected = {"sizes", *(f"ours and {name}, apart by" for name in names[1:])}
    for title in peer.PASSES.values():
        expected |= {f"{title}: {name}" for name in names} | {f"{title}: ours / {name}" for name in names[1:]}
    assert results.keys() == expected
    for name in names[1:]:
        apart = results[f"ours and {name}, apart by"]
        assert apart["outputs, relative RMS"] < 1e-5 and apart["gradients, relative RMS"] < 1e-4
    values = [value for figures in results.values() for value in figures.values()]
    assert np.all(np.isfinite(values))
    own, other = (results[f"forward, evaluation: {name}"] for name in names[:2])
    assert own["videos a second, greatest"] == pytest.approx(2 / own["seconds, least"])
    ratio = results["forward, evaluation: ours / PyTorch, eager"]
    low, high = ratio["videos a second, least"], ratio["videos a second, greatest"]
    assert low * own["seconds, least"] <= other["seconds, greatest"]
    assert high * own["seconds, greatest"] >= other["seconds, least"]


def without_compiler(original):
    """A `Peer` whose compiled variants fail."""

    class WithoutCompiler(original):
        def __init__(self, config, state_dict, inputs, variant):
            if variant.startswith("compiled"):
                raise RuntimeError("there is no compiler\nsecond line")
            super().__init__(config, state_dict, inputs, variant)

    return WithoutCompiler


def test_networks_that_disagree_are_not_timed():
    outputs, gradients = ({"x": np.full(100, 2.0, np.float32)} for _ in range(2))
    wrong = {"x": outputs["x"] * np.float32(1.001)}
    figures = peer.compare((outputs, gradients), (outputs, wrong), "float32")
    assert figures == {"outputs, relative RMS": 0.0, "gradients, relative RMS": pytest.approx(1e-3, rel=0.01)}
    with pytest.raises(UserError, match="their outputs are apart by 0.001 .* Nothing was timed"):
        peer.compare((outputs, gradients), (wrong, gradients), "float32")
    with pytest.raises(UserError, match="their gradients are apart by nan"):
        peer.compare((outputs, {"x": gradients["x"] * np.nan}), (outputs, gradients), "float32")


def test_without_pytorch_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit, match=r"not installed: pip install -e '\.\[torch\]'"):
        main(["peer"])


def test_a_network_of_another_kind_gets_a_sentence():
    pytest.importorskip("torch")
    with pytest.raises(SystemExit, match="error: Only a network that differs from the released one in nothing but"):
        main(["peer", "--config=configs/pretrain.py:demo"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts it")
def test_growth_of_the_process():
    grown = peer.resident_growth(lambda: np.ones(50_000_000, np.uint8).sum())
    assert 48e6 < grown < 80e6
