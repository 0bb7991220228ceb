"""Evaluation of a checkpoint of any task; what it measures depends on the task that the run was trained for.

    python eval.py --config=configs/eval.py --workdir=runs/demo

    python eval.py --config=configs/eval.py --workdir=DIR --config.data.name=NAME       on another data set
    python eval.py --config=configs/eval.py --workdir=DIR --watch                       each checkpoint as it lands

Model, data set and seed of the run come from WORKDIR/config.json; here is only what evaluation adds or changes.
"""

from ml_collections import ConfigDict, config_dict


def get_config() -> ConfigDict:
    """Returns the evaluation config."""
    return ConfigDict(
        {
            "seed": 0,
            # Videos, or views in tests of classification. MEP chooses among the clips of a batch, so its chance level
            # depends on this.
            "batch_size": 16,
            "max_videos": 2000,  # of each split; tests of classification take all
            # Not set: as in training. Imported weights have no data set of their own, so they need a name.
            "data": {
                "name": config_dict.placeholder(str),
                "data_dir": config_dict.placeholder(str),
                "train_split": config_dict.placeholder(str),
                "eval_split": config_dict.placeholder(str),
                "frontend": {
                    "fps": config_dict.placeholder(float),
                    "short_side": config_dict.placeholder(int),
                    "sample_rate": config_dict.placeholder(int),
                    "n_fft": config_dict.placeholder(int),
                    "win_length": config_dict.placeholder(int),
                    "hop_length": config_dict.placeholder(int),
                    "mels": config_dict.placeholder(int),
                },
                "num_clips": config_dict.placeholder(int),
                "frames_per_clip": config_dict.placeholder(int),
                "frame_stride": config_dict.placeholder(int),
                "mel_frames": config_dict.placeholder(int),
                "min_short_side": config_dict.placeholder(int),
                "max_short_side": config_dict.placeholder(int),
                "crop": config_dict.placeholder(int),
                "num_workers": 0,  # Threads: to start processes for each pass over a small data set takes longer.
            },
            # Views of a video in tests of classification. Not set: as in the config of the run.
            "test": {
                "temporal_views": config_dict.placeholder(int),
                "spatial_views": config_dict.placeholder(int),
                "short_side": config_dict.placeholder(int),
                "crop": config_dict.placeholder(int),
                "pool": config_dict.placeholder(str),
            },
            "poll_seconds": 10.0,  # how often --watch looks for a new checkpoint
            "peer_timeout_seconds": 100,  # after which a process ends whose peer has died
            "exclude_pretraining_videos": False,  # leave out test videos whose ids are among those of pretraining
            "recalibration_batches": 8,  # training batches that give the fresh network its BatchNorm statistics
            # Logistic regression; each probe chooses between standardized and whitened features, and C, the inverse of
            # the L2 penalty, on every fifth training video.
            "probe": {
                "standardized_c": (0.1, 1.0, 10.0),
                "whitened_c": (0.001, 0.01, 0.1, 1.0),
                "max_iterations": 100,
            },
            # Vote of the k nearest training videos by cosine similarity, with weights exp(similarity / temperature);
            # k, too, is chosen on every fifth training video.
            "neighbors": {"k": (5, 20, 100), "temperature": 0.07},
            # Retrieval by features: penalties in multiples of the mean variance, chosen on every fifth training video.
            "canonical_penalties": (0.001, 0.01, 0.1, 1.0),
            "bootstrap_resamples": 1000,  # of the test videos, for 95 % intervals of probes and retrieval
            "retrieval_gallery": 200,  # test videos; every image is scored against every sound: gallery^2 pairs
            "sheet_videos": 6,  # rows of the report's sheet of test videos
        }
    )
