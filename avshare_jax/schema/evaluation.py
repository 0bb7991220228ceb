"""Configs of evaluation, whose data and views replace those of a run where they are not None."""

from typing import Annotated

from pydantic import Field

from avshare_jax.schema.base import (
    LARGEST_INT32,
    AsTuple,
    Count,
    FrameRate,
    Group,
    Pool,
    Positive,
    Seconds,
    Seed,
    ShortSide,
    Size,
    Text,
    Views,
    WindowLength,
    Workers,
)

Numbers = Annotated[tuple[Positive, ...], AsTuple, Field(min_length=1)]
Videos = Annotated[int, Field(ge=2, le=LARGEST_INT32)]


class EvaluatedFrontEnd(Group):
    """Fields of the front end that replace the run's."""

    fps: FrameRate | None
    short_side: ShortSide | None
    sample_rate: Size | None
    n_fft: Size | None
    win_length: WindowLength | None
    hop_length: Size | None
    mels: Size | None


class EvaluatedData(Group):
    """Fields of the data that replace the run's."""

    name: Text | None
    data_dir: Text | None
    train_split: Text | None
    eval_split: Text | None
    frontend: EvaluatedFrontEnd
    num_clips: Size | None
    frames_per_clip: Size | None
    frame_stride: Size | None
    mel_frames: Size | None
    min_short_side: Size | None
    max_short_side: Size | None
    crop: Size | None
    num_workers: Workers


class EvaluatedTest(Group):
    """Views that replace the run's."""

    temporal_views: Views | None
    spatial_views: Views | None
    short_side: Size | None
    crop: Size | None
    pool: Pool | None


class Probe(Group):
    """Logistic regression, and what it chooses among."""

    standardized_c: Numbers
    whitened_c: Numbers
    max_iterations: Count


class Neighbors(Group):
    """The vote of the nearest training videos."""

    k: Annotated[tuple[Count, ...], AsTuple, Field(min_length=1)]
    temperature: Annotated[float, Field(ge=1e-3)]


class Evaluation(Group):
    """Configs of `configs/eval.py`."""

    seed: Seed
    batch_size: Size
    max_videos: Videos
    data: EvaluatedData
    test: EvaluatedTest
    poll_seconds: Annotated[float, Field(ge=0.01, le=86_400)]
    peer_timeout_seconds: Seconds
    exclude_pretraining_videos: bool
    recalibration_batches: Count
    probe: Probe
    neighbors: Neighbors
    canonical_penalties: Numbers
    bootstrap_resamples: Annotated[int, Field(ge=1, le=10**6)]
    retrieval_gallery: Videos
    sheet_videos: Count
