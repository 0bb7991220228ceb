"""The report of an evaluation: a folder with figures and the page that shows them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from avshare_jax.evaluation import plots
from avshare_jax.evaluation.page import format_page
from avshare_jax.evaluation.plots import SheetRow
from avshare_jax.evaluation.retrieval import true_pair_ranks
from avshare_jax.training.metrics import kept_lines

NEIGHBORS = 2


def write_report(
    folder: epath.Path,
    evaluation: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    scores: Mapping[str, np.ndarray],
    sheet: Sequence[SheetRow],
    pictures: Mapping[int, plots.Picture],
    goodput: Mapping[str, float],
) -> epath.Path:
    """Draws all figures and writes the page that shows them.

    Args:
      folder: To write to; made if it is not there.
      evaluation: What `evaluate` measured.
      metrics: The run's logged steps, as from `read_metrics`.
      scores: "trained" and "random" → (G, G) pair scores of the retrieval gallery; empty without retrieval.
      sheet: The videos to show, as from `sheet_rows`.
      pictures: Place in the gallery → the video, for every place in `sheet`.
      goodput: Seconds of training by cause, as from `goodput.summarize`.

    Returns:
      The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if evaluation["heldout"]:
        plots.plot_curves(metrics, evaluation["heldout"]["trained"], evaluation["step"], folder / "training.png")
    plots.plot_parameters(evaluation["parameters"], folder / "parameters.png")
    if evaluation["linear_probe"]:
        plots.plot_probes(evaluation["linear_probe"], evaluation["neighbors"], folder / "probes.png")
    if evaluation["retrieval"]:
        plots.plot_retrieval(scores, folder / "retrieval.png")
        plots.plot_sheet(pictures, sheet, len(scores["trained"]), folder / "videos.png")
    page = folder / "index.html"
    page.write_bytes(format_page(evaluation, goodput).encode(errors="replace"))
    return page


def read_metrics(path: epath.Path) -> list[dict[str, Any]]:
    """Reads a metrics.jsonl file, one object per logged step; lines that were cut short or damaged are left out."""
    return [json.loads(line) for line in kept_lines(path)]


def sheet_rows(scores: np.ndarray, captions: list[str], num_rows: int) -> list[SheetRow]:
    """Takes the first video of each class (not the best ones) and finds its neighbors by (G, G) pair scores."""
    queries = list({caption: place for place, caption in reversed(list(enumerate(captions)))}.values())[::-1]
    ranks = true_pair_ranks(scores), true_pair_ranks(scores.T)
    return [
        SheetRow(
            query=query,
            sounds=np.argsort(-scores[query])[:NEIGHBORS].tolist(),
            images=np.argsort(-scores[:, query])[:NEIGHBORS].tolist(),
            sound_rank=int(ranks[0][query]),
            image_rank=int(ranks[1][query]),
        )
        for query in sorted(queries)[:num_rows]
    ]
