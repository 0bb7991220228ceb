"""The JobSet that is generated, and what becomes of it."""

import pytest
import yaml

from tests.launch import fakes

TPU = ("--name=avbert", "--image=registry/avshare_jax", "--accelerator=tpu-v5-lite-podslice", "--topology=4x8")
GPU = ("--name=avbert", "--image=registry/avshare_jax", "--accelerator=nvidia-h100-80gb", "--gpus_per_node=8")
ARGUMENTS = ("--config=configs/pretrain.py:10s", "--workdir=gs://bucket/run", '--config.note=a "b" \\c $(D) é: #')


@pytest.fixture
def cluster(tmp_path):
    cluster = fakes.Fakes(tmp_path, fakes.ROOT)
    cluster.program("kubectl", fakes.NOTE_ONLY)
    return cluster


def generate(cluster, *options):
    result = cluster.run("gke.sh", *options, "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert cluster.calls() == []
    jobset = yaml.safe_load(result.stdout)
    [replicated] = jobset["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    return jobset, replicated, job, container


def test_tpu_slices(cluster):
    options = ("--slices=2", "--spot", "--max_restarts=7", "--grace=90", "--namespace=team", "--service_account=reader")
    jobset, replicated, job, container = generate(cluster, *TPU, *options, "--env=A=b c")
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"] == {
        "name": "avbert",
        "namespace": "team",
        "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
    }
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert replicated["replicas"] == 2
    assert job["parallelism"] == job["completions"] == 8  # 4 x 8 chips, 4 to a machine.
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert pod["terminationGracePeriodSeconds"] == 90
    assert pod["serviceAccountName"] == "reader"
    assert container["resources"] == {"requests": {"google.com/tpu": 4}, "limits": {"google.com/tpu": 4}}
    assert container["image"] == "registry/avshare_jax"
    assert container["command"] == ["python", "main.py"]
    assert {"name": "A", "value": "b c"} in container["env"]
    # Batches of the reading processes need more shared memory than the default.
    [mount], [volume] = container["volumeMounts"], pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/dev/shm"} and volume["emptyDir"] == {"medium": "Memory"}


def test_arguments_arrive_as_they_were_given(cluster):
    *_, container = generate(cluster, *TPU)
    # What Kubernetes makes of them: $$ is a dollar sign, and nothing here names a variable.
    assert [argument.replace("$$", "$") for argument in container["args"]] == list(ARGUMENTS)
    assert container["args"][2].count("$$(D)") == 1


def test_mistake_ends_the_jobset_and_anything_else_restarts_all_processes(cluster):
    jobset, _, job, container = generate(cluster, *TPU)
    [pod_rule] = job["podFailurePolicy"]["rules"]
    codes = {"containerName": container["name"], "operator": "In", "values": [1]}
    assert pod_rule == {"action": "FailJob", "onExitCodes": codes}
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # Kubernetes demands it of a podFailurePolicy.
    assert job["backoffLimit"] == 0
    [rule] = jobset["spec"]["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 30


@pytest.mark.parametrize("shape, hosts, chips", [("2x2", 1, 4), ("1x1", 1, 1), ("4x4x4", 16, 4)])
def test_machines_follow_from_the_topology(cluster, shape, hosts, chips):
    *_, job, container = generate(cluster, *TPU[:-1], f"--topology={shape}")
    assert (job["parallelism"], container["resources"]["limits"]["google.com/tpu"]) == (hosts, chips)


def test_gpu_nodes_are_told_who_they_are(cluster):
    jobset, replicated, job, container = generate(cluster, *GPU, "--nodes=4")
    assert "annotations" not in jobset["metadata"]
    assert replicated["replicas"] == 1 and job["parallelism"] == job["completions"] == 4
    assert job["completionMode"] == "Indexed"  # Which is what makes JOB_COMPLETION_INDEX.
    assert job["template"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert container["args"][len(ARGUMENTS) :] == [
        f"--coordinator=avbert-{replicated['name']}-0-0.avbert:8476",
        "--num_processes=4",
        "--process_id=$(JOB_COMPLETION_INDEX)",
    ]


def test_apply_hands_the_same_jobset_to_kubectl(cluster):
    printed = cluster.run("gke.sh", *TPU, "--", *ARGUMENTS).stdout
    result = cluster.run("gke.sh", *TPU, "--apply", "--", *ARGUMENTS)
    assert result.returncode == 0
    assert cluster.calls() == [["kubectl", "apply", "-f", "-"]]
    assert (cluster.folder / "kubectl.stdin").read_text() == printed
    assert "kubectl delete jobset avbert" in result.stderr


def test_refusal_of_kubectl_is_an_error(cluster):
    (cluster.folder / "kubectl.code").write_text("3")
    assert cluster.run("gke.sh", *TPU, "--apply", "--", *ARGUMENTS).returncode == 3


def test_dry_run_prints_the_command_and_calls_nothing(cluster):
    printed = cluster.run("gke.sh", *TPU, "--", *ARGUMENTS).stdout
    result = cluster.run("gke.sh", *TPU, "--apply", "--dry_run", "--", *ARGUMENTS)
    assert result.stdout == f"kubectl apply -f - <<'YAML'\n{printed}YAML\n"
    assert cluster.calls() == []


def test_line_ends_of_a_variable_stay(cluster):
    key = "-----BEGIN KEY-----\nab\tc\r\n-----END KEY-----\n"
    *_, container = generate(cluster, *TPU, f"--env=KEY={key}")
    assert {"name": "KEY", "value": key} in container["env"]


@pytest.mark.parametrize("word", ["--env=A=\x1b[31m", "--env=A-B=c", "--namespace=a: b", "--accelerator=x\ny: z"])
def test_what_a_jobset_cannot_hold_is_a_sentence(cluster, word):
    result = cluster.run("gke.sh", *TPU, word, "--", *ARGUMENTS)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and not result.stdout


@pytest.mark.parametrize("value", ["true", "123", "1e5", "null"])
def test_values_that_yaml_would_take_for_others_stay_text(cluster, value):
    jobset, *_ = generate(cluster, *TPU, f"--namespace={value}")
    assert jobset["metadata"]["namespace"] == value


def test_missing_kubectl_is_a_sentence(cluster):
    (cluster.bin / "kubectl").unlink()
    for tool in ("bash", "cat"):
        (cluster.bin / tool).symlink_to(f"/bin/{tool}")
    result = cluster.run("gke.sh", *TPU, "--apply", "--", *ARGUMENTS, PATH=str(cluster.bin))
    assert result.returncode == 1 and "kubectl is not on the PATH" in result.stderr


@pytest.mark.parametrize(
    "options, sentence",
    [
        (TPU[1:], "--name= must be"),
        (("--name=AV_BERT", *TPU[1:]), "--name=AV_BERT must be"),
        ((TPU[0], *TPU[2:]), "--image=IMAGE is missing"),
        ((*TPU[:2], TPU[3]), "--accelerator=NAME is missing"),
        (TPU[:3], "--topology= must be the shape"),
        ((*TPU, "--topology=16"), "--topology=16 must be the shape"),
        ((*TPU, "--chips_per_host=5"), "--chips_per_host=5 does not divide the 32 chips"),
        ((*TPU, "--nodes=2"), "--nodes is for GPUs"),
        ((*TPU, "--gpus_per_node=8"), "are for TPUs"),
        ((*TPU, "--slices=two"), "--slices=two must be a whole number above 0"),
        ((*TPU, "--max_restarts=-1"), "--max_restarts=-1 must be a whole number"),
        ((*TPU, "--color=red"), "Unknown option --color=red"),
    ],
)
def test_wrong_usage_is_a_sentence(cluster, options, sentence):
    result = cluster.run("gke.sh", *options, "--apply", "--", *ARGUMENTS)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and sentence in result.stderr
    assert cluster.calls() == []


def test_workdir_must_be_shared(cluster):
    result = cluster.run("gke.sh", *TPU, "--", "--workdir=runs/a")
    assert result.returncode == 2 and "need --workdir=gs://" in result.stderr
