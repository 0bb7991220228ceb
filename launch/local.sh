#!/usr/bin/env bash
# Everything on one machine: installs what is missing, pretrains, evaluates the last checkpoint, and draws the report.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/local.sh [--dry_run] [main.py arguments]

Installs what is missing into .venv, runs main.py (which makes the demo's videos and data set when they are not there),
then eval.py on the last checkpoint, and says where the results are. Run it again to go on where it stopped.

  --config=FILE[:VARIANT]    what to train                     default: configs/pretrain.py:demo
  --workdir=DIR              where checkpoints and report go   default for the demo: runs/demo
  --config.FIELD=VALUE       overrides one value, for example --config.log_every=5
  --dry_run                  prints the commands and runs none

Relative paths are seen from the repository's root. PYTHON names the Python that .venv is made with (default: python3).
USAGE
}

config=(--config=configs/pretrain.py:demo)
workdir=
dry_run=
arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit ;;
    --dry_run) dry_run=yes ;;
    --workdir=*) workdir=${1#*=} ;;
    --workdir) workdir=${2:?--workdir needs a folder}; shift ;;
    --config=*) config=("$1") ;;
    --config) config=("--config=${2:?--config needs a file}"); shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
if [ -z "$workdir" ] && [ "${config[0]}" != --config=configs/pretrain.py:demo ]; then
  echo "Another config than the demo's needs a folder of its own: say --workdir=DIR." >&2
  exit 2
fi
workdir=${workdir:-runs/demo}
workdir=${workdir/#\~\//$HOME/}  # The shell leaves the tilde of --workdir=~/runs alone.

pretrain=(.venv/bin/python main.py "${config[@]}" --workdir="$workdir" "${arguments[@]}")
evaluate=(.venv/bin/python eval.py --config=configs/eval.py --workdir="$workdir")
if [ -n "$dry_run" ]; then
  echo "source launch/environment.sh"
  printf '%q ' "${pretrain[@]}" && echo
  printf '%q ' "${evaluate[@]}" && echo
  exit
fi

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

say "Pretraining into $workdir ..."
"${pretrain[@]}"
say "Evaluating the last checkpoint in $workdir ..."
"${evaluate[@]}"

cat <<DONE

Done in $((SECONDS / 60)) min $((SECONDS % 60)) s.
  checkpoints  $workdir/checkpoints
  evaluation   $(printf '%s\n' "$workdir"/eval/*.json | sort -V | tail -n 1)
  report       $workdir/report/index.html   (opens in a browser)
DONE
