"""What tests of downstream tasks share: small data sets in the publishers' formats, and reduced configs."""

from pathlib import Path

from ml_collections import ConfigDict

from avshare_jax.data.frontend import FrontEnd
from avshare_jax.prepare import main as prepare_main
from avshare_jax.settings import load_config_file

FRONTEND = FrontEnd(fps=8.0, short_side=20, sample_rate=8_000, n_fft=400, hop_length=200, mels=16)
MODEL = {
    "hidden": 16,
    "mlp": 32,
    "heads": 2,
    "layers": 1,
    # Full weights shared by all compile soonest; how weights are shared is nothing to classification.
    "rank": None,
    "transformer_sharing": "all",
    "dropout": 0.0,
    "positions": 5,
    "dtype": "float32",
}
CNNS = {
    "visual_cnn.width": 4,
    "visual_cnn.stage_sizes": (1,),
    "visual_cnn.temporal_kernels": (1,),
    "visual_cnn.stem_kernel": (1, 3, 3),
    "visual_cnn.stem_strides": (2, 2, 2),
    "audio_cnn.width": 4,
    "audio_cnn.stage_sizes": (1,),
    "audio_cnn.separable_stages": 1,
    "audio_cnn.stem_kernel": 3,
}
CONFIG_FILES = {
    "ucf101": "configs/finetune_ucf101.py",
    "esc50": "configs/linear_esc50.py",
    "kinetics_sounds": "configs/finetune_kinetics_sounds.py",
}
DATA = {"min_short_side": 16, "max_short_side": 20, "crop": 16, "num_workers": 0}


def prepare(command: list[str], name: str, data_dir: Path) -> None:
    """Prepares a tree as its command does, with the small front end."""
    sizes = [f"--{field}={value}" for field, value in vars(FRONTEND).items()]
    prepare_main([*command, f"--name={name}", f"--data_dir={data_dir}", "--workers=1", *sizes])


def reduce_data(config: ConfigDict, name: str, data_dir: Path, num_clips: int, seconds: float) -> None:
    """Clips of so many seconds from a small data set; half of their frames."""
    config.data.update(DATA)
    config.data.update(name=name, data_dir=str(data_dir), frontend=ConfigDict(vars(FRONTEND)))
    rows = round(seconds * FRONTEND.sample_rate / FRONTEND.hop_length)
    frames = round(seconds * FRONTEND.fps / 2)
    config.data.update(num_clips=num_clips, frames_per_clip=frames, frame_stride=2, mel_frames=rows)


def reduce_model(config: ConfigDict) -> None:
    """The same parts with one stage, one layer and few channels."""
    config.model.update(MODEL)
    config.update_from_flattened_dict({f"model.{name}": value for name, value in CNNS.items()})


def reduced(path_and_variant: str, name: str, data_dir: Path, **changes) -> ConfigDict:
    """A downstream config at reduced size; further fields by their dotted names."""
    config = load_config_file(path_and_variant)
    clips = 1 if config.data.num_clips == 1 else 2
    reduce_data(config, name, data_dir, clips, 2.0 / clips)
    reduce_model(config)
    config.update(log_every=20, checkpoint_every=1_000, checkpoints_kept=2)
    config.test.update(temporal_views=2, short_side=18, crop=16)
    config.update_from_flattened_dict(changes)
    return config


def evaluation_config(**changes) -> ConfigDict:
    """configs/eval.py with further fields by their dotted names."""
    config = load_config_file("configs/eval.py")
    config.update_from_flattened_dict({"poll_seconds": 0.05, **changes})
    return config


def differences(plain: ConfigDict, config: ConfigDict, prefix: str = "") -> list[str]:
    """The command line's arguments that make a config out of a plain one."""
    arguments = []
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            arguments += differences(plain[name], value, f"{prefix}{name}.")
        elif value != plain[name]:
            arguments.append(f"--config.{prefix}{name}={value}")
    return arguments
