#!/usr/bin/env bash
# Runs main.py as several processes on this machine that act as the hosts of a pod.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/simulate_pod.sh N [main.py arguments]

Starts N processes of main.py that form one run, connected through this machine's loopback. They share its CPU; the
losses are those of a single process. Lines of process I begin with "[I] ". Ends with the first code that is not 0.

  --dry_run                  prints the commands and starts nothing
  DEVICES_PER_PROCESS=4      simulated devices of each process             default: 1
  PORT=12345                 where process 0 listens                       default: a free one
USAGE
}

case ${1:-} in
  '' | -h | --help) usage; exit ;;
  *[!0-9]* | 0) echo "The number of processes must be 1 or more, and not '$1'; see launch/simulate_pod.sh --help." >&2; exit 2 ;;
esac
count=$1
shift
dry_run=
arguments=()
for argument in "$@"; do
  if [ "$argument" = --dry_run ]; then dry_run=yes; else arguments+=("$argument"); fi
done

[ -n "$dry_run" ] || source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
port=${PORT:-$(python3 -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')}
export JAX_PLATFORMS=cpu XLA_FLAGS="--xla_force_host_platform_device_count=${DEVICES_PER_PROCESS:-1} ${XLA_FLAGS:-}"
if [ "${DEVICES_PER_PROCESS:-1}" -gt 1 ]; then
  # XLA's threads. What waits for another device holds one, and with too few of them all wait for each other.
  threads=$((4 * DEVICES_PER_PROCESS)) cores=$(nproc)
  export NPROC="${NPROC:-$((threads > cores ? threads : cores))}"
fi

processes=()
trap 'kill "${processes[@]}" 2>/dev/null' INT TERM
for ((i = 0; i < count; i++)); do
  command=(.venv/bin/python main.py "${arguments[@]}" "--coordinator=localhost:$port" "--num_processes=$count" "--process_id=$i")
  if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}" && echo
    continue
  fi
  "${command[@]}" > >(sed -u "s/^/[$i] /") 2> >(sed -u "s/^/[$i] /" >&2) &
  processes+=($!)
done
code=0
for process in "${processes[@]}"; do
  wait "$process" || { last=$?; [ "$code" -ne 0 ] || code=$last; }
done
exit "$code"
