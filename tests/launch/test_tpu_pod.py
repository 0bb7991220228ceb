"""The life of a TPU pod against a cloud of two machines that are folders: what the script sends to them really runs."""

import subprocess
import time

import pytest

from tests.launch import fakes

WHERE = ("--name=avbert", "--zone=us-west4-a")
TYPE = "--accelerator_type=v5litepod-16"
ARGUMENTS = ("--config=configs/pretrain.py", "--workdir=gs://bucket/runs/a b", "--config.note=it's $HOME")
QUICK = (*WHERE, TYPE, "--poll=0")

# The machines' Python: notes what is installed, runs main.py.
VENV_PYTHON = """
if sys.argv[1] == "-m":
    sys.exit()
sys.argv.pop(0)
"""
ENVIRONMENT = """
mkdir -p .venv/bin
cp "$FAKES/bin/venv_python" .venv/bin/python
printf '%s\n' "${PYTHON:-python3}" >>"$FAKES/python"
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    checkout = fakes.make_checkout(tmp_path_factory.mktemp("project") / "checkout")
    (checkout / "launch" / "environment.sh").write_text(ENVIRONMENT)
    for command in (["init", "-q"], ["add", "--all"], ["commit", "-q", "-m", "all"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *identity, *command], cwd=checkout, check=True)
    return checkout


@pytest.fixture
def pod(tmp_path, checkout):
    pod = fakes.Fakes(tmp_path, checkout)
    pod.program("gcloud", fakes.GCLOUD)
    pod.program("venv_python", VENV_PYTHON + fakes.MAIN)
    pod.program("python3", "")
    yield pod
    (tmp_path / "release").touch()  # Ends what still waits.


def gcloud(pod, kind, verb):
    return pod.calls("gcloud", "compute", "tpus", kind, verb)


def make_present(pod):
    (pod.folder / "request").write_text("ACTIVE")
    (pod.folder / "pod").write_text("READY")


def wait_for(path):
    deadline = time.monotonic() + fakes.TIMEOUT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_pod_that_is_absent_is_created_installed_and_run(pod):
    pod.scenario("exit 0")
    flags = ("--spot", "--project=p", "--create_flag=--network=mine", "--ssh_flag=--internal-ip", "--env=A=b c")
    result = pod.run("tpu_pod.sh", "up", *QUICK, *flags, "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert "Done." in result.stderr and result.stdout == ""
    [create] = gcloud(pod, "queued-resources", "create")
    where = ["--zone=us-west4-a", "--project=p"]
    kind = ["--accelerator-type=v5litepod-16", "--runtime-version=v2-alpha-tpuv5-lite"]
    assert create[5:] == ["avbert", "--node-id=avbert", *where, *kind, "--spot", "--network=mine"]
    [copy] = gcloud(pod, "tpu-vm", "scp")
    assert copy[6:] == ["avbert:avshare_jax.tar.gz", *where, "--internal-ip", "--quiet", "--worker=all"]
    for call in gcloud(pod, "tpu-vm", "ssh"):
        assert call[5:-1] == ["avbert", *where, "--internal-ip", "--quiet", "--worker=all"]
    for worker in ("worker0", "worker1"):
        [(arguments, environment)] = pod.starts(worker)
        assert arguments == list(ARGUMENTS)
        assert environment["A"] == "b c"
        assert (pod.folder / worker / "avshare_jax" / "requirements.txt").exists()
        assert (pod.folder / worker / "avshare_run" / "log").read_text() == "main.py was here\n"
    installs = [call for call in pod.calls("venv_python", "-m") if "jax[tpu]==9.8.7" in call]
    assert len(installs) == 2
    assert (pod.folder / "python").read_text() == "python3\npython3\n"


def test_machines_with_an_old_python_get_a_newer_one(pod):
    make_present(pod)
    pod.program("python3", "print('/opt/python3.12') if 'find' in sys.argv else sys.exit('-c' in sys.argv)")
    result = pod.run("tpu_pod.sh", "install", *WHERE)
    assert result.returncode == 0, result.stderr
    assert ["python3", "-m", "uv", "python", "install", "--quiet", "3.12"] in pod.calls()
    assert (pod.folder / "python").read_text() == "/opt/python3.12\n" * 2


def test_pod_that_is_there_is_used(pod):
    make_present(pod)
    pod.scenario("exit 0")
    assert pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS).returncode == 0
    assert not gcloud(pod, "queued-resources", "create") and not gcloud(pod, "queued-resources", "delete")
    assert pod.run("tpu_pod.sh", "create", *QUICK).returncode == 0
    assert not gcloud(pod, "queued-resources", "create")


def test_preempted_pod_is_created_again_and_the_run_goes_on(pod):
    pod.scenario("preempted", "exit 0")
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert "was preempted" in result.stderr and "starting failed" not in result.stderr
    first, second = gcloud(pod, "queued-resources", "create")
    assert first == second
    [delete] = gcloud(pod, "queued-resources", "delete")
    assert delete[5:] == ["avbert", "--zone=us-west4-a", "--force", "--quiet"]
    assert len(gcloud(pod, "tpu-vm", "scp")) == 2
    assert [arguments for arguments, _ in pod.starts("worker0")] == [list(ARGUMENTS)] * 2


@pytest.mark.parametrize(
    "states", [("SUSPENDED", None), ("FAILED", None), ("ACTIVE", "PREEMPTED"), (None, "PREEMPTED")]
)
def test_what_will_not_come_back_is_replaced(pod, states):
    for name, state in zip(("request", "pod"), states, strict=True):
        if state:
            (pod.folder / name).write_text(state)
    result = pod.run("tpu_pod.sh", "create", *QUICK)
    assert result.returncode == 0, result.stderr
    verbs = [call[4] for call in pod.calls("gcloud") if call[4] != "describe"]
    assert verbs == ["delete", "create"]


def test_process_that_dies_is_started_again_on_the_same_pod(pod):
    pod.scenario("exit 75", "exit 134 0", "exit 0")
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    assert "exit codes 75, 75. Restart 1 of at most 30." in result.stderr
    assert "exit codes 134, 0. Restart 2 of at most 30." in result.stderr
    assert len(gcloud(pod, "queued-resources", "create")) == len(gcloud(pod, "tpu-vm", "scp")) == 1
    assert len(pod.starts("worker0")) == len(pod.starts("worker1")) == 3


def test_restarts_are_bounded(pod):
    pod.scenario(*["exit 134"] * 9)
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--max_restarts=2", "--", *ARGUMENTS)
    assert result.returncode == 75
    assert "error: main.py ended with exit codes 134, 134. Gave up after --max_restarts=2" in result.stderr
    assert len(pod.starts("worker0")) == 3


@pytest.mark.parametrize("codes", ["exit 1", "exit 134 1"])
def test_mistake_is_not_repeated(pod, codes):
    pod.scenario(codes, "exit 0")
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    assert result.returncode == 1
    assert "exit code 1, which a restart would repeat" in result.stderr
    assert "main.py was here" in result.stdout
    assert len(pod.starts("worker0")) == 1


def test_pod_that_somebody_deletes_is_not_created_again(pod):
    pod.scenario("deleted", "exit 0")
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    assert result.returncode == 75
    assert "avbert was deleted" in result.stderr
    assert len(gcloud(pod, "queued-resources", "create")) == 1


def test_run_outlives_its_connection_and_ends_when_told_to(pod):
    make_present(pod)
    pod.scenario("wait", "exit 0")
    early = pod.run("tpu_pod.sh", "run", *WHERE, "--", *ARGUMENTS)
    assert early.returncode != 0 and "launch/tpu_pod.sh install does it" in early.stderr
    assert pod.run("tpu_pod.sh", "install", *WHERE).returncode == 0
    assert "none" in pod.run("tpu_pod.sh", "status", *WHERE).stdout
    assert pod.run("tpu_pod.sh", "run", *WHERE, "--", *ARGUMENTS).returncode == 0
    for worker in ("worker0", "worker1"):
        wait_for(pod.folder / f"up-{worker}")

    assert pod.run("tpu_pod.sh", "status", *WHERE).stdout.count(": running") == 2
    for command in (("run", *WHERE, "--", *ARGUMENTS), ("install", *WHERE)):
        result = pod.run("tpu_pod.sh", *command)
        assert result.returncode != 0 and "stop it first" in result.stderr
    assert pod.run("tpu_pod.sh", "logs", *WHERE, "--worker=1").stdout == "main.py was here\n"
    [logs] = [call for call in gcloud(pod, "tpu-vm", "ssh") if "tail -n 100 -F" in call[-1]]
    assert "--worker=1" in logs

    assert pod.run("tpu_pod.sh", "stop", *WHERE).stdout.count("asked to save and end") == 2
    for worker in ("worker0", "worker1"):
        wait_for(pod.folder / worker / "avshare_run" / "exit_code")
        assert (pod.folder / worker / "avshare_run" / "exit_code").read_text() == "75\n"
    assert pod.run("tpu_pod.sh", "stop", *WHERE).stdout.count("nothing is running") == 2
    assert pod.run("tpu_pod.sh", "run", *WHERE, "--", *ARGUMENTS).returncode == 0


def test_up_watches_a_run_that_is_going_on_and_lets_a_stopped_one_be(pod):
    pod.scenario("wait", "exit 0")
    first = pod.start("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    for worker in ("worker0", "worker1"):
        wait_for(pod.folder / f"up-{worker}")
    first.kill()  # The watcher, not the run.
    first.communicate(timeout=fakes.TIMEOUT)
    second = pod.start("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    while "watching it" not in (line := second.stderr.readline()):
        assert line, "up ended without watching"
    assert pod.run("tpu_pod.sh", "stop", *WHERE).returncode == 0
    _, errors = second.communicate(timeout=fakes.TIMEOUT)
    assert second.returncode == 75 and "The run was stopped" in errors
    assert len(pod.starts("worker0")) == len(pod.starts("worker1")) == 1


def test_delete(pod):
    assert "nothing to delete" in pod.run("tpu_pod.sh", "delete", *WHERE).stderr
    assert not gcloud(pod, "queued-resources", "delete") and not gcloud(pod, "tpu-vm", "delete")
    (pod.folder / "pod").write_text("READY")
    assert pod.run("tpu_pod.sh", "delete", *WHERE).returncode == 0
    assert [call[5:] for call in gcloud(pod, "tpu-vm", "delete")] == [["avbert", "--zone=us-west4-a", "--quiet"]]
    make_present(pod)
    assert pod.run("tpu_pod.sh", "delete", *WHERE).returncode == 0
    assert len(gcloud(pod, "queued-resources", "delete")) == 1


def test_cloud_without_an_answer_is_not_taken_for_an_absent_pod(pod):
    (pod.folder / "outage").touch()
    result = pod.run("tpu_pod.sh", "create", *QUICK)
    assert result.returncode == 1
    assert "PERMISSION_DENIED" in result.stderr and "could not be asked 20 times in a row" in result.stderr
    assert {call[4] for call in pod.calls("gcloud")} == {"describe"}


def test_machines_that_cannot_be_reached_are_left_alone(pod):
    make_present(pod)
    (pod.folder / "ssh_outage").touch()
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--", *ARGUMENTS)
    assert result.returncode == 1 and "A run on it may still be going on" in result.stderr
    assert {call[4] for call in pod.calls("gcloud")} == {"describe", "ssh"}
    assert len(gcloud(pod, "tpu-vm", "ssh")) == 20


def test_request_that_gcloud_refuses_ends_the_script(pod):
    (pod.folder / "refusal").touch()
    result = pod.run("tpu_pod.sh", "create", *QUICK)
    assert result.returncode == 1
    assert "INVALID_ARGUMENT" in result.stderr and "gcloud did not take the request" in result.stderr
    assert len(gcloud(pod, "queued-resources", "create")) == 1


def test_dry_run_prints_the_commands_in_their_order_and_calls_nothing(pod):
    result = pod.run("tpu_pod.sh", "up", *QUICK, "--spot", "--dry_run", "--", *ARGUMENTS)
    assert result.returncode == 0, result.stderr
    steps = ["queued-resources create avbert", "git archive", "tpu-vm scp", "jax[tpu]==9.8.7", "main.py --config="]
    places = [result.stdout.index(step) for step in steps]
    assert places == sorted(places)
    for command in ("install", "logs", "status", "stop", "delete"):
        assert "gcloud compute tpus" in pod.run("tpu_pod.sh", command, *WHERE, "--dry_run").stdout
    assert pod.calls() == []


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "A command is missing"),
        (["lift", *WHERE], "Unknown command lift"),
        (["stop", "--zone=z"], "--name=NAME is missing"),
        (["stop", "--name=a"], "--zone=ZONE is missing"),
        (["stop", *WHERE, "--color=red"], "Unknown option --color=red"),
        (["stop", "run", *WHERE], "Two commands"),
        (["create", *WHERE], "--accelerator_type=TYPE is missing"),
        (["create", *WHERE, "--accelerator_type=v99-8"], "No image is known for v99-8"),
        (["run", *WHERE, "--", "--workdir=runs/a"], "need --workdir=gs://"),
        (["stop", *WHERE, "--", "--workdir=/a"], "Only up and run take arguments of main.py"),
        (["stop", *WHERE, "--poll=soon"], "must be whole numbers"),
    ],
)
def test_wrong_usage_is_a_sentence(pod, arguments, sentence):
    result = pod.run("tpu_pod.sh", *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and sentence in result.stderr
    assert pod.calls() == []


def test_missing_gcloud_is_a_sentence(pod, tmp_path):
    result = subprocess.run(
        [subprocess.check_output(["which", "bash"], text=True).strip(), "launch/tpu_pod.sh", "stop", *WHERE],
        cwd=pod.checkout,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=fakes.TIMEOUT,
    )
    assert result.returncode == 1 and "gcloud is not on the PATH" in result.stderr
