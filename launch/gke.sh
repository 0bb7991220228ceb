#!/usr/bin/env bash
# A run on GKE: prints a JobSet that trains on TPU slices or GPU nodes and restarts by itself, or applies it.
set -euo pipefail

usage() {
  cat <<'USAGE'
Usage: launch/gke.sh --name=NAME --image=IMAGE --accelerator=ACCELERATOR [options] -- main.py arguments

Prints the JobSet as YAML; with --apply, hands it to kubectl. The cluster needs the JobSet controller
(https://jobset.sigs.k8s.io), and node pools with the accelerator. docs/launching.md shows how the image is made.

  --name=NAME            of the JobSet; needed
  --image=IMAGE          with this project in its working directory and its libraries in `python`; needed
  --accelerator=NAME     value of the node label cloud.google.com/gke-tpu-accelerator (such as tpu-v5-lite-podslice)
                         or, for GPUs, cloud.google.com/gke-accelerator (such as nvidia-h100-80gb); needed
  TPU
  --topology=AxB[xC]     of a slice, value of cloud.google.com/gke-tpu-topology; needed
  --slices=N             number of slices                                  default: 1
  --chips_per_host=N     TPU chips of a machine                            default: 4, or all of a smaller slice
  GPU
  --gpus_per_node=N      makes it a run on GPUs, with one process per node
  --nodes=N              number of nodes                                   default: 1
  Both
  --spot                 on Spot machines
  --max_restarts=N       how often the JobSet starts again                 default: 30
  --grace=SECONDS        from SIGTERM to SIGKILL, to save a checkpoint in  default: 120
  --namespace=NAME       default: kubectl's own
  --service_account=NAME of Kubernetes, for access to gs:// paths
  --env=NAME=VALUE       for the environment of main.py; can be repeated
  --apply                runs kubectl apply
  --dry_run              with --apply: prints that command, and runs nothing

The arguments of main.py need --workdir=gs://..., or an absolute path on a disk that all machines share. A process that
ends with 1 (a mistake, which would recur) ends the JobSet; with any other code but 0, and when a machine is preempted,
the JobSet starts all processes again, from the last checkpoint.

  launch/gke.sh --name=avbert --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/avshare_jax \
    --accelerator=tpu-v5-lite-podslice --topology=8x8 --spot --apply -- \
    --config=configs/pretrain.py --config.data.data_dir=gs://BUCKET/data --workdir=gs://BUCKET/runs/avbert
USAGE
}

say() { printf '%s\n' "$*" >&2; }
wrong_usage() {
  say "error: $* See launch/gke.sh --help."
  exit 2
}

# Prints a string for YAML, which has escapes for line ends and tabs. In arguments and variables Kubernetes would replace
# $(NAME); $$ stands for a dollar sign.
yaml() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n} text=${text//$'\r'/\\r} text=${text//$'\t'/\\t}
  printf '"%s"' "${text//\$/\$\$}"
}

name='' image='' accelerator='' topology='' slices=1 chips_per_host='' gpus_per_node='' nodes=1 spot='' max_restarts=30
grace=120 namespace='' service_account='' apply='' dry_run=''
environment=() arguments=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help)
      usage
      exit
      ;;
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --chips_per_host=*) chips_per_host=${1#*=} ;;
    --gpus_per_node=*) gpus_per_node=${1#*=} ;;
    --nodes=*) nodes=${1#*=} ;;
    --spot) spot=yes ;;
    --max_restarts=*) max_restarts=${1#*=} ;;
    --grace=*) grace=${1#*=} ;;
    --namespace=*) namespace=${1#*=} ;;
    --service_account=*) service_account=${1#*=} ;;
    --env=*=*) environment+=("${1#*=}") ;;
    --apply) apply=yes ;;
    --dry_run) dry_run=yes ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    *) wrong_usage "Unknown option $1: options are written --name=value, and arguments of main.py come after --." ;;
  esac
  shift
done

# Pods are called NAME-slice-INDEX-INDEX-XXXXX, and their names serve as host names.
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
  wrong_usage "--name=$name must be at most 40 lower-case letters, digits and dashes, and begin with a letter."
[ -n "$image" ] || wrong_usage "--image=IMAGE is missing."
[ -n "$accelerator" ] || wrong_usage "--accelerator=NAME is missing, for example tpu-v5-lite-podslice."
label='^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$' dns='^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$'
[[ $accelerator =~ $label ]] || wrong_usage "--accelerator=$accelerator is no value of a node label."
[[ ${namespace:-none} =~ $dns ]] || wrong_usage "--namespace=$namespace is no name of a namespace."
[[ ${service_account:-none} =~ $dns ]] || wrong_usage "--service_account=$service_account is no name of an account."
for word in "$image" "${environment[@]}" "${arguments[@]}"; do
  [[ ! ${word//[$'\n\r\t']/} =~ [[:cntrl:]] ]] ||
    wrong_usage "$(printf '%q' "$word") has a control character, which the JobSet cannot hold."
done
for word in "${environment[@]}"; do
  [[ ${word%%=*} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] ||
    wrong_usage "--env=$(printf '%q' "$word") must be NAME=VALUE, with a name of letters, digits and underscores."
done
for number in slices nodes chips_per_host gpus_per_node grace; do
  [[ ${!number} =~ ^([1-9][0-9]*)?$ ]] || wrong_usage "--$number=${!number} must be a whole number above 0."
done
[[ $max_restarts =~ ^[0-9]+$ ]] || wrong_usage "--max_restarts=$max_restarts must be a whole number."
case " ${arguments[*]} " in
  *" --workdir="*://* | *" --workdir=/"*) ;;
  *) wrong_usage "The arguments of main.py (after --) need --workdir=gs://..., or an absolute path on a disk that all" \
    "machines share: what is in a container is lost when it ends." ;;
esac

if [ -n "$gpus_per_node" ]; then
  [ -z "$topology$chips_per_host" ] && [ "$slices" = 1 ] ||
    wrong_usage "--topology, --slices and --chips_per_host are for TPUs, --gpus_per_node is for GPUs."
  hosts=$nodes devices="nvidia.com/gpu: $gpus_per_node"
  selectors=("cloud.google.com/gke-accelerator: \"$accelerator\"")
  # JAX recognizes TPU slices by itself; here it is told. JobSet names the first pod, Kubernetes numbers them.
  port=8476
  distributed=("--coordinator=$name-slice-0-0.$name:$port" "--num_processes=$nodes")
  # shellcheck disable=SC2016  # Kubernetes expands it.
  process_id='--process_id=$(JOB_COMPLETION_INDEX)'
else
  [[ $topology =~ ^[1-9][0-9]*(x[1-9][0-9]*)+$ ]] ||
    wrong_usage "--topology=$topology must be the shape of a TPU slice, for example 4x4 (or say --gpus_per_node=N)."
  [ "$nodes" = 1 ] || wrong_usage "--nodes is for GPUs: the number of TPU machines follows from --topology."
  chips=$((${topology//x/*}))
  [ -n "$chips_per_host" ] || chips_per_host=$((chips < 4 ? chips : 4))
  [ $((chips % chips_per_host)) = 0 ] ||
    wrong_usage "--chips_per_host=$chips_per_host does not divide the $chips chips of a slice of $topology."
  hosts=$((chips / chips_per_host)) devices="google.com/tpu: $chips_per_host"
  selectors=("cloud.google.com/gke-tpu-accelerator: \"$accelerator\"" "cloud.google.com/gke-tpu-topology: $topology")
  distributed=() process_id=
fi
[ -z "$spot" ] || selectors+=('cloud.google.com/gke-spot: "true"')

# Prints its arguments as the lines of a block, each after as many blanks as the first argument has.
lines() {
  local indent=$1
  shift
  [ $# = 0 ] || printf "$indent%s\n" "$@"
}

jobset() {
  local word arguments_of_main=() variables=()
  for word in "${arguments[@]}" "${distributed[@]}"; do
    arguments_of_main+=("- $(yaml "$word")")
  done
  [ -z "$process_id" ] || arguments_of_main+=("- $process_id")
  for word in PYTHONUNBUFFERED=1 "${environment[@]}"; do
    variables+=("- name: ${word%%=*}" "  value: $(yaml "${word#*=}")")
  done
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: "$name"
YAML
  [ -z "$namespace" ] || echo "  namespace: \"$namespace\""
  if [ -z "$gpus_per_node" ]; then
    # A slice is a node pool: its pods must be together, and alone.
    lines '  ' 'annotations:' '  alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool'
  fi
  cat <<YAML
spec:
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
      - name: mistake
        action: FailJobSet
        onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
    - name: slice
      replicas: $slices
      template:
        spec:
          completionMode: Indexed
          parallelism: $hosts
          completions: $hosts
          backoffLimit: 0  # One process cannot join the others again: the JobSet starts all of them.
          podFailurePolicy:
            rules:
              - action: FailJob
                onExitCodes:
                  containerName: main
                  operator: In
                  values: [1]
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: $grace
YAML
  [ -z "$service_account" ] || echo "              serviceAccountName: \"$service_account\""
  lines '              ' 'nodeSelector:'
  lines '                ' "${selectors[@]}"
  cat <<YAML
              containers:
                - name: main
                  image: $(yaml "$image")
                  command: [python, main.py]
                  args:
YAML
  lines '                    ' "${arguments_of_main[@]}"
  lines '                  ' 'env:'
  lines '                    ' "${variables[@]}"
  cat <<YAML
                  ports:
                    - containerPort: ${port:-8471}
                  resources:
                    requests:
                      $devices
                    limits:
                      $devices
                  volumeMounts:
                    - name: shared-memory
                      mountPath: /dev/shm
              volumes:
                - name: shared-memory  # Batches pass through it, and the default of 64 MB is too little.
                  emptyDir:
                    medium: Memory
YAML
}

if [ -z "$apply" ]; then
  jobset
  exit
fi
if [ -n "$dry_run" ]; then
  printf "kubectl apply -f - <<'YAML'\n%s\nYAML\n" "$(jobset)"
  exit
fi
if ! type kubectl >/dev/null 2>&1; then
  say "error: kubectl is not on the PATH. Install it (https://kubernetes.io/docs/tasks/tools), then connect it to the" \
    "cluster: gcloud container clusters get-credentials CLUSTER."
  exit 1
fi
jobset | kubectl apply -f -
of_namespace=${namespace:+ --namespace=$namespace}
first_pod=batch.kubernetes.io/job-name=$name-slice-0,batch.kubernetes.io/job-completion-index=0
say "state:  kubectl get jobset,pods -l jobset.sigs.k8s.io/jobset-name=$name$of_namespace"
say "log:    kubectl logs -f \$(kubectl get pods -o name -l $first_pod$of_namespace)$of_namespace"
say "delete: kubectl delete jobset $name$of_namespace   (each process saves a checkpoint first)"
