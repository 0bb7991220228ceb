#!/usr/bin/env bash
# A Cloud TPU pod, or a single TPU VM, from its creation to its deletion, with restarts after preemptions.
# shellcheck disable=SC2016  # What is in single quotes is for the shells of the workers.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/tpu_pod.sh COMMAND --name=NAME --zone=ZONE [options] [-- main.py arguments]

Commands
  up         everything: create, install, run; then watches, and restarts until the run is done
  create     requests the pod (a queued resource) and waits for it; one that is there already is used
  install    copies the committed files to every worker and makes .venv there, with JAX for TPU
  run        starts main.py on every worker; it goes on when the connection ends
  logs       follows the log of a worker
  status     says how the pod and each worker are
  stop       asks the run to save a checkpoint and end; up or run with the same arguments goes on with it
  delete     deletes the pod and its request

Options
  --name=NAME                of the pod; needed
  --zone=ZONE                where it is; needed
  --project=PROJECT          default: gcloud's own
  --accelerator_type=TYPE    for example v5litepod-64; needed by create and up
  --runtime_version=VERSION  image of the workers         default: the one for JAX that goes with the type
  --spot                     a cheaper pod, which may be preempted
  --create_flag=FLAG         another flag of "gcloud compute tpus queued-resources create"; can be repeated
  --ssh_flag=FLAG            another flag of every gcloud ssh and scp; can be repeated
  --env=NAME=VALUE           for the environment of main.py; can be repeated
  --worker=N                 whose log                    default: 0
  --max_restarts=N           how often up starts again    default: 30
  --poll=SECONDS             between two looks at the pod default: 30
  --dry_run                  prints the commands and runs none; takes each step to succeed on the first attempt

up and run need --workdir among the arguments of main.py: gs://..., or an absolute path on a disk that workers share.
up deletes a preempted pod, creates and installs it again, and goes on from the last checkpoint. On the pod that is
there, it starts main.py again when that ends with anything but 0 (done) or 1 (a mistake, which would recur).

  launch/tpu_pod.sh up --name=avbert --zone=us-west4-a --accelerator_type=v5litepod-64 --spot -- \
    --config=configs/pretrain.py --config.data.data_dir=gs://BUCKET/data --workdir=gs://BUCKET/runs/avbert
USAGE
}

# What the workers run. The home folder has the code in avshare_jax and, in avshare_run, the log and what became of the
# run: `supervisor` and `pid` (of the shell around main.py, and of main.py), `exit_code`, and `stopped` after a stop.
remote_prelude='set -eu
state=~/avshare_run
running() { grep -qs avshare_run/run.sh "/proc/$(cat "$state/supervisor" 2>/dev/null || echo none)/cmdline"; }
refuse_while_running() {
  if running; then echo "A run is going on on $(hostname): stop it first." >&2; exit 1; fi
}'
remote_state='if running; then now=running
elif [ -e "$state/stopped" ]; then now=stopped
elif [ -e "$state/exit_code" ]; then now=$(cat "$state/exit_code")
elif [ -e "$state/supervisor" ]; then now=137  # The machine was restarted under it.
else now=none
fi
echo "$(hostname): avshare_state=$now"'
remote_stop='if running; then
  touch "$state/stopped"
  kill -TERM "$(cat "$state/pid")"
  echo "$(hostname): asked to save and end"
else
  echo "$(hostname): nothing is running"
fi'
remote_kill='if running; then kill -KILL "$(cat "$state/pid")"; fi'

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $*"
  exit 1
}
wrong_usage() {
  say "error: $* See launch/tpu_pod.sh --help."
  exit 2
}

# Prints words as a line for a shell to read.
quoted() {
  local word
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    printf '%s ' "$word"
  done
}

# Runs a command, or prints it in a dry run. Standard output may be captured around it, hence descriptor 3.
exec 3>&1
call() {
  if [ -n "$dry_run" ]; then
    quoted "$@" >&3
    echo >&3
  else
    "$@" 3>&-
  fi
}

# on_workers WORKER COMMAND. --quiet: nobody may be there to answer when the first ssh makes its key.
on_workers() {
  call gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "${ssh_flags[@]}" --quiet "--worker=$1" \
    "--command=$remote_prelude"$'\n'"$2"
}

# Prints a field of the request (queued-resources) or of the pod itself (tpu-vm), or ABSENT.
describe() {
  local answer
  if answer=$(call gcloud compute tpus "$1" describe "$name" "${where[@]}" "--format=value($2)" 2>"$errors"); then
    echo "${answer:-UNKNOWN}"
  elif grep -q NOT_FOUND "$errors"; then
    echo ABSENT
  else
    cat "$errors" >&2
    return 1
  fi
}

# Prints READY, ABSENT, LOST (it will not come back by itself), UNREACHABLE (gcloud could not tell), or WAITING and why.
pod_state() {
  local request pod
  if ! request=$(describe queued-resources state.state) || ! pod=$(describe tpu-vm state); then
    echo UNREACHABLE
    return
  fi
  if [ -n "$dry_run" ]; then
    echo "$pretended"
    return
  fi
  case $request/$pod in
    ABSENT/ABSENT) echo ABSENT ;;
    FAILED/* | SUSPENDED/* | */PREEMPTED | */TERMINATED) echo LOST ;;
    ABSENT/READY | ACTIVE/READY) echo READY ;;
    *) echo "WAITING (request $request, pod $pod)" ;;
  esac
}

# Counts what went wrong in a row without telling how the run is; gives up, not the run, when it is much.
missed() {
  misses=$((misses + 1))
  if [ "$misses" -ge 20 ]; then
    fail "$name could not be asked 20 times in a row. A run on it may still be going on: once" \
      "\"launch/tpu_pod.sh status\" works again, the same command goes on."
  fi
}

count_restart() {
  restarts=$((restarts + 1))
  if [ "$restarts" -gt "$max_restarts" ]; then
    say "error: $* Gave up after --max_restarts=$max_restarts restarts; the same command goes on from the last" \
      "checkpoint."
    exit 75
  fi
  say "$* Restart $restarts of at most $max_restarts."
}

create() {
  local state request
  request=(gcloud compute tpus queued-resources create "$name" "--node-id=$name" "${where[@]}"
    "--accelerator-type=$accelerator_type" "--runtime-version=$runtime_version" "${create_flags[@]}")
  while true; do
    state=$(pod_state)
    case $state in
      READY)
        say "$name is ready."
        return
        ;;
      ABSENT)
        say "Requesting $name ..."
        installed=
        if ! call "${request[@]}"; then
          [ "$restarts" -gt 0 ] || fail "gcloud did not take the request for $name; its message is above."
          missed
        fi
        pretended=READY
        ;;
      LOST)
        count_restart "$name was preempted or its request failed."
        installed=
        delete || missed
        continue
        ;;
      UNREACHABLE) missed ;;
      *)
        misses=0
        say "$state"
        ;;
    esac
    [ -n "$dry_run" ] || sleep "$poll"
  done
}

delete() {
  local request pod
  request=$(describe queued-resources state.state) && pod=$(describe tpu-vm state) || return 1
  if [ "$request" != ABSENT ]; then
    # --force: with the pod.
    call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  elif [ "$pod" != ABSENT ]; then
    call gcloud compute tpus tpu-vm delete "$name" "${where[@]}" --quiet
  else
    say "There is no $name in $zone: nothing to delete."
  fi
}

install() {
  local jax
  jax=$(sed -n 's/^jax==\([^ ]*\).*/\1/p' requirements.txt)
  if [ -n "$(git status --porcelain)" ]; then
    say "Changes that are not committed are not copied."
  fi
  say "Installing on all workers (some minutes) ..."
  call git archive --format=tar.gz "--output=$scratch/avshare_jax.tar.gz" HEAD &&
    call gcloud compute tpus tpu-vm scp "$scratch/avshare_jax.tar.gz" "$name:avshare_jax.tar.gz" "${where[@]}" \
      "${ssh_flags[@]}" --quiet --worker=all &&
    on_workers all "refuse_while_running
mkdir -p ~/avshare_jax
tar -xzf ~/avshare_jax.tar.gz -C ~/avshare_jax
cd ~/avshare_jax
# Images of Ubuntu 22.04 have Python 3.10, which is too old, and not every image has venv.
if ! python3 -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
  PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv==0.13.9
  python3 -m uv python install --quiet 3.12
  PYTHON=\$(python3 -m uv python find --system 3.12)
  export PYTHON
fi
bash -ec 'source launch/environment.sh'
.venv/bin/python -m pip install --quiet --disable-pip-version-check 'jax[tpu]==$jax' \\
  -f https://storage.googleapis.com/jax-releases/libtpu_releases.html"
}

start() {
  say "Starting main.py on all workers ..."
  # The subshell becomes main.py, whose id `stop` needs; the shell around it outlives it to note its exit code.
  on_workers all "refuse_while_running
if ! [ -x ~/avshare_jax/.venv/bin/python ]; then
  echo \"Nothing is installed on \$(hostname): launch/tpu_pod.sh install does it.\" >&2
  exit 1
fi
mkdir -p \"\$state\"
rm -f \"\$state\"/supervisor \"\$state\"/pid \"\$state\"/exit_code \"\$state\"/stopped
cat >\"\$state/run.sh\" <<'RUN'
cd ~/avshare_jax
(
  echo \$BASHPID >~/avshare_run/pid
  exec env $(quoted "${environment[@]}")PYTHONUNBUFFERED=1 .venv/bin/python main.py $(quoted "${arguments[@]}")
) >>~/avshare_run/log 2>&1
echo \$? >~/avshare_run/exit_code
RUN
nohup bash \"\$state/run.sh\" </dev/null >/dev/null 2>&1 &
echo \$! >\"\$state/supervisor\""
}

# Prints running, stopped, none or an exit code for each worker.
worker_states() {
  local answer
  answer=$(on_workers all "$remote_state" 2>/dev/null) || return 1
  if [ -n "$dry_run" ]; then
    echo "$pretended_run"
  else
    grep -o 'avshare_state=[a-z0-9]*' <<<"$answer" | cut -d= -f2
  fi
}

# Returns once the run has ended or the pod is gone, and sets outcome: done, mistake, stopped, failed, lost or deleted.
watch() {
  local state code failed_at=
  while true; do
    [ -n "$dry_run" ] || sleep "$poll"
    state=$(pod_state)
    case $state in
      LOST)
        outcome=lost
        return
        ;;
      ABSENT)
        outcome=deleted
        return
        ;;
      READY) ;;
      UNREACHABLE)
        missed
        continue
        ;;
      *)
        say "$state"
        continue
        ;;
    esac
    if ! states=$(worker_states); then
      missed
      continue
    fi
    misses=0 outcome="done"
    for code in $states; do
      case $code in
        0 | running) ;;
        1) outcome=mistake ;;
        stopped) [ "$outcome" = mistake ] || outcome=stopped ;;
        *) [ "$outcome" != "done" ] || outcome=failed ;;
      esac
    done
    grep -q running <<<"$states" || return 0
    if [ "$outcome" != "done" ]; then
      # The others end by themselves once they miss their peer; this is for those that do not.
      failed_at=${failed_at:-$SECONDS}
      if [ $((SECONDS - failed_at)) -ge 600 ]; then
        say "Some workers ended and others still run after 10 minutes: ending them."
        on_workers all "$remote_kill" || missed
      fi
    fi
  done
}

up() {
  trap 'say "No longer watching. A run goes on: up with the same arguments watches it, stop ends it."; exit 130' INT
  while true; do
    create
    pretended_run=none
    if ! states=$(worker_states); then
      missed
      sleep "$poll"
      continue
    fi
    misses=0
    if grep -q running <<<"$states"; then
      say "A run is going on already: watching it."
    elif ! { { [ -n "$installed" ] || install; } && start; }; then
      installed=
      count_restart "Installing or starting failed."
      sleep "$poll"
      continue
    fi
    installed=yes pretended_run=0
    say "Running. To follow the log: launch/tpu_pod.sh logs --name=$name --zone=$zone"
    watch
    case $outcome in
      done)
        say "Done. The pod is still there: launch/tpu_pod.sh delete --name=$name --zone=$zone"
        return
        ;;
      mistake)
        on_workers all 'tail -n 20 "$state/log"' || true
        fail "main.py ended with exit code 1, which a restart would repeat. The ends of the logs are above."
        ;;
      stopped)
        say "The run was stopped; the same command goes on with it."
        exit 75
        ;;
      failed) count_restart "main.py ended with exit codes ${states//$'\n'/, }." ;;
      lost) ;;  # Counted where it is created again.
      deleted)
        # A preemption leaves the request behind, so this was somebody's wish.
        say "$name was deleted, so nothing is watched any more; the same command goes on from the last checkpoint."
        exit 75
        ;;
    esac
  done
}

command=
name='' zone='' accelerator_type='' runtime_version='' dry_run='' worker=0 max_restarts=30 poll=30
create_flags=() ssh_flags=() environment=() arguments=() where=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --project=*) where+=("$1") ;;
    --accelerator_type=*) accelerator_type=${1#*=} ;;
    --runtime_version=*) runtime_version=${1#*=} ;;
    --spot) create_flags+=(--spot) ;;
    --create_flag=*) create_flags+=("${1#*=}") ;;
    --ssh_flag=*) ssh_flags+=("${1#*=}") ;;
    --env=*=*) environment+=("${1#*=}") ;;
    --worker=*) worker=${1#*=} ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --poll=*) poll=${1#*=} ;;
    --dry_run) dry_run=yes ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    -*) wrong_usage "Unknown option $1: options are written --name=value, and arguments of main.py come after --." ;;
    *)
      [ -z "$command" ] || wrong_usage "Two commands, $command and $1: give one."
      command=$1
      ;;
  esac
  shift
done

case $command in
  up | create | install | run | logs | status | stop | delete) ;;
  '') wrong_usage "A command is missing: up, create, install, run, logs, status, stop or delete." ;;
  *) wrong_usage "Unknown command $command." ;;
esac
[ -n "$name" ] || wrong_usage "--name=NAME is missing."
[ -n "$zone" ] || wrong_usage "--zone=ZONE is missing."
[[ $max_restarts =~ ^[0-9]+$ && $poll =~ ^[0-9]+$ ]] || wrong_usage "--max_restarts and --poll must be whole numbers."
where=("--zone=$zone" "${where[@]}")
if [ "$command" = up ] || [ "$command" = create ]; then
  [ -n "$accelerator_type" ] || wrong_usage "--accelerator_type=TYPE is missing, for example v5litepod-64."
  case $accelerator_type in
    v2-* | v3-* | v4-*) default_version=tpu-ubuntu2204-base ;;
    v5litepod-*) default_version=v2-alpha-tpuv5-lite ;;
    v5p-*) default_version=v2-alpha-tpuv5 ;;
    v6e-*) default_version=v2-alpha-tpuv6e ;;
    *) default_version= ;;
  esac
  runtime_version=${runtime_version:-$default_version}
  [ -n "$runtime_version" ] || wrong_usage "No image is known for $accelerator_type: say --runtime_version."
fi
if [ "$command" = up ] || [ "$command" = run ]; then
  case " ${arguments[*]} " in
    *" --workdir="*://* | *" --workdir=/"*) ;;
    *) wrong_usage "The arguments of main.py (after --) need --workdir=gs://..., or an absolute path on a disk that" \
      "all workers share: what is on a worker's own disk is lost with the pod." ;;
  esac
elif [ ${#arguments[@]} -gt 0 ]; then
  wrong_usage "Only up and run take arguments of main.py."
fi
if [ -z "$dry_run" ] && ! type gcloud >/dev/null 2>&1; then
  fail "gcloud is not on the PATH. Install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install)."
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
if { [ "$command" = up ] || [ "$command" = install ]; } && ! git rev-parse --verify --quiet HEAD >/dev/null; then
  fail "$PWD is not a git checkout with a commit, and the committed files are what is copied to the workers."
fi
if [ -n "$dry_run" ]; then
  scratch=${TMPDIR:-/tmp} errors=/dev/null
else
  scratch=$(mktemp -d)
  errors=$scratch/errors
  trap 'rm -rf "$scratch"' EXIT
fi
restarts=0 misses=0 installed='' outcome='' states=''
pretended=ABSENT pretended_run=none  # What a dry run takes for the answers.

case $command in
  up) up ;;
  create) create ;;
  install) install ;;
  run) start ;;
  logs) on_workers "$worker" 'tail -n 100 -F "$state/log"' ;;
  status)
    pretended=READY
    state=$(pod_state)
    [ -n "$dry_run" ] || echo "$name is $state."
    if [ "$state" = READY ]; then
      on_workers all "$remote_state" | sed 's/avshare_state=//'
    fi
    ;;
  stop) on_workers all "$remote_stop" ;;
  delete) delete ;;
esac
