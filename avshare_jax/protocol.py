"""Runs a downstream protocol whole: trains and tests on each of its splits, and reports mean and standard deviation.

    python -m avshare_jax.protocol --config=configs/finetune_ucf101.py --config.init_from=RUN --workdir=DIR

Split n is run in DIR/split_n as main.py and eval.py would; DIR/protocol.json has what came of all. Given again, the
command goes on where it was. Tests are those of the config's `test`.
"""

import json
import os
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from avshare_jax import recipes, schema, settings
from avshare_jax.data.errors import DatasetError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs; by default runs/<name of the config>.")
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX does not find it by itself.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run, with --coordinator.", lower_bound=1)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of them this is, from 0, with --coordinator.", lower_bound=0
)

MEASURES = {"top1": "top-1", "top5": "top-5", "mean_average_precision": "mAP"}


def run_protocol(config: ConfigDict, eval_config: ConfigDict, workdir: str) -> dict[str, Any]:
    """Trains and tests on all splits, as far as that is not done.

    Args:
      config: made by `recipes.classification`; its `split` is ignored.
      eval_config: from `recipes.evaluation`.
      workdir: of the runs.

    Returns:
      What protocol.json holds: `splits`, the measures of each, and `mean` and `std` over them, by the choice of
      modalities and the measure; the standard deviation is that of a sample, None of a single split.

    Raises:
      UserError, DatasetError: as from training and testing.
    """
    import jax
    from etils import epath

    from avshare_jax.evaluation.runs import writing_measures
    from avshare_jax.training.checkpoints import check_workdir, replace_text
    from avshare_jax.training.finetune import finetune
    from avshare_jax.training.goodput import Goodput

    check_workdir(workdir)
    found = []
    for split in range(1, config.num_splits + 1):
        of_split = config.copy_and_resolve_references()
        of_split.split = split
        folder = os.path.join(workdir, f"split_{split}")
        print(f"\nSplit {split} of {config.num_splits}, in {folder}", flush=True)
        finetune(of_split, folder, goodput=Goodput())
        found.append(test_split(test_config(of_split, eval_config), folder))
    result = summarize(found) | {"run": config.name, "init_from": config.init_from}
    print(f"\n{format_result(result)}\n", flush=True)
    if jax.process_index() == 0:
        path = epath.Path(workdir) / "protocol.json"
        with writing_measures(path):
            replace_text(path, json.dumps(result, indent=2) + "\n")
        print(f"All measures: {path}", flush=True)
    return result


def test_config(config: ConfigDict, eval_config: ConfigDict) -> ConfigDict:
    """Returns a copy of the evaluation config that tests what the config of a split says, whatever its run recorded."""
    from avshare_jax.training.finetune import with_split

    data, chosen = with_split(config).data, eval_config.copy_and_resolve_references()
    chosen.data.update(name=data.name, data_dir=data.data_dir, eval_split=data.eval_split)
    chosen.test.update(config.test)
    return chosen


def test_split(eval_config: ConfigDict, folder: str) -> Mapping[str, Any]:
    """Tests the last checkpoint of the run in `folder`, or takes what the same test of it has written before.

    Returns:
      The same in all processes, of which only the first looks for a test.
    """
    import jax

    from avshare_jax.evaluation.runs import evaluate_run
    from avshare_jax.training.checkpoints import latest_step
    from avshare_jax.training.hosts import gather

    step = latest_step(folder)
    evaluation = gather(earlier_test(eval_config, folder, step) if jax.process_index() == 0 else None)[0]
    return evaluation or evaluate_run(eval_config, folder, step)


def earlier_test(eval_config: ConfigDict, folder: str, step: int) -> dict[str, Any] | None:
    """What eval/STEP.json holds, if the same videos were tested in the same way; else None.

    Args:
      eval_config: from `test_config`.
      folder: of the run.
      step: of the checkpoint.
    """
    from avshare_jax.data.mixtures import dataset_names
    from avshare_jax.evaluation.opening import trained_fingerprint
    from avshare_jax.evaluation.runs import evaluation_file
    from avshare_jax.training.checkpoints import load_identity, read_object

    path = evaluation_file(folder, step)
    if not path.exists():
        return None
    fields = {"dataset": dict, "overlap": (dict, type(None)), "views": dict, "measures": dict}
    try:
        evaluation = read_object(path, fields)
    except settings.UserError:
        print(f"{path} is damaged: testing again.", flush=True)
        return None
    trained_on = load_identity(path.parent.parent)
    name = dataset_names(eval_config.data.name)[0]
    data, overlap, exclude = evaluation["dataset"], evaluation["overlap"], eval_config.exclude_pretraining_videos
    if overlap:  # Where nothing is in common, there is nothing to leave out.
        exclude = exclude and (overlap["overlapping_videos"] != 0 or bool(overlap["not_compared"]))
    same = (
        data["split"] == eval_config.data.eval_split
        and data["name"] == name
        and data["fingerprint"] == trained_fingerprint(trained_on, name)
        # Where videos may have several classes, what lacks this number counted also those that have none.
        and ("num_without_class" in data or not data.get("multi_label"))
        and evaluation["views"] == eval_config.test.to_dict()
        and (not overlap or overlap["excluded"] == exclude)
    )
    return evaluation if same else None


def summarize(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of the measures of several splits, beside these."""
    table: dict[str, dict[str, dict[str, float | None]]] = {"mean": {}, "std": {}}
    for choice in evaluations[0]["measures"]:
        rows = [evaluation["measures"][choice] for evaluation in evaluations]
        for name in MEASURES:
            values = [row.get(name) for row in rows]
            mean, std = mean_and_deviation(values)
            table["mean"].setdefault(choice, {})[name] = mean
            table["std"].setdefault(choice, {})[name] = std
    splits = [
        {name: evaluation[name] for name in ("split", "step", "dataset", "measures")} for evaluation in evaluations
    ]
    return {"splits": splits, **table}


def mean_and_deviation(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of a sample; None where a value is unknown, or there is only one."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None, None
    return statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None


def format_result(result: Mapping[str, Any]) -> str:
    """Formats mean and standard deviation for the console, and what each split was tested on."""
    from avshare_jax.evaluation.classification_report import TITLES

    lines = [
        f"{result['run']}, started from {result['init_from'] or 'random weights'}: {len(result['splits'])} split(s)"
    ]
    for split in result["splits"]:
        data = split["dataset"]
        lines.append(
            f"  split {split['split']}: {data['num_classes']} classes, {data['num_videos']:,} videos of "
            f"{data['split']}, {data['num_skipped']:,} skipped"
        )
    for choice, means in result["mean"].items():
        cells = []
        for name, title in MEASURES.items():
            mean, std = means[name], result["std"][choice][name]
            if mean is not None:
                cells.append(f"{title} {100 * mean:.1f}" + (f" ± {100 * std:.1f}" if std is not None else "") + " %")
        lines.append(f"  {TITLES[choice]}: {', '.join(cells)}")
    return "\n".join(lines)


def main(config: ConfigDict) -> None:
    """Runs the protocol of the config."""
    from avshare_jax.compilation_cache import keep_compiled_programs
    from avshare_jax.training import hosts

    hosts.connect(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, config.peer_timeout_seconds)
    with hosts.ending_together():
        keep_compiled_programs()
        run_protocol(config, recipes.evaluation(), os.path.expanduser(WORKDIR.value or f"runs/{config.name}"))


if __name__ == "__main__":  # Data-reading worker processes import this file.
    find_mistakes = partial(schema.find_mistakes, kinds=(schema.CLASSIFICATION,))
    settings.run(main, "configs/finetune_ucf101.py", find_mistakes, user_errors=(DatasetError,))
