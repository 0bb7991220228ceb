"""Programs that stand in for gcloud, kubectl and Slurm: they note how they were called and play a scenario."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT = 30

GCLOUD = """
# A cloud with one pod: the files `request` and `pod` hold its states, `worker0` and `worker1` are its machines' homes.

def describe(name):
    if exists("outage"):
        sys.exit("ERROR: (gcloud) PERMISSION_DENIED: no answer today.")
    if not exists(name):
        sys.exit(f"ERROR: (gcloud) NOT_FOUND: Resource 'projects/p/locations/z/{name}' was not found")
    print(read(name))

def create():
    if exists("refusal"):
        sys.exit("ERROR: (gcloud) INVALID_ARGUMENT: no such accelerator.")
    write("request", "ACTIVE")
    write("pod", "READY")

def delete():
    import shutil
    remove("request")
    remove("pod")
    for worker in WORKERS:
        shutil.rmtree(worker, ignore_errors=True)

def copy(source, target):
    with open(source, "rb") as file:
        content = file.read()
    for worker in WORKERS:
        os.makedirs(worker, exist_ok=True)
        with open(f"{worker}/{target}", "wb") as file:
            file.write(content)

def ssh(command, chosen):
    if exists("ssh_outage"):
        sys.exit(255)
    failed = False
    for number, worker in enumerate(WORKERS):
        if chosen in ("all", str(number)):
            os.makedirs(worker, exist_ok=True)
            home = {**os.environ, "HOME": f"{FAKE}/{worker}"}
            pid = os.posix_spawnp("bash", ["bash", "-c", command], home)
            failed |= os.waitpid(pid, 0)[1] != 0
    sys.exit(failed)

WORKERS = ["worker0", "worker1"]
options = dict(word[2:].split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
started_in = os.getcwd()
os.chdir(FAKE)
match sys.argv[3:5]:
    case ["queued-resources", "describe"]:
        describe("request")
    case ["tpu-vm", "describe"]:
        describe("pod")
    case ["queued-resources", "create"]:
        create()
    case [_, "delete"]:
        delete()
    case ["tpu-vm", "scp"]:
        copy(os.path.join(started_in, sys.argv[5]), sys.argv[6].partition(":")[2])
    case ["tpu-vm", "ssh"]:
        ssh(options["command"].replace("tail -n 100 -F", "tail -n 100"), options["worker"])
"""

# Takes the place of main.py on a machine or in a Slurm step: its n-th start plays the n-th line of `scenario`.
MAIN = """
import signal
os.chdir(FAKE)
machine = os.environ["HOME"].rpartition("/")[2] if "SLURM_JOB_ID" not in os.environ else "step"
number = len(read(f"starts-{machine}").splitlines()) if exists(f"starts-{machine}") else 0
write(f"starts-{machine}", repr((sys.argv[1:], dict(os.environ))) + "\\n", "a")
print("main.py was here", flush=True)
terminated = []
signal.signal(signal.SIGTERM, lambda *_: terminated.append(True))
write(f"up-{machine}", str(os.getpid()))
match read("scenario").splitlines()[number].split():
    case ["exit", *codes]:  # One for both workers, or one for each.
        sys.exit(int(codes[-1] if machine == "worker1" else codes[0]))
    case ["preempted"]:
        write("pod", "PREEMPTED")
        sys.exit(143)
    case ["deleted"]:
        remove("pod")
        remove("request")
        sys.exit(143)
    case ["wait"]:
        while not terminated and not exists("release"):
            time.sleep(0.02)
        sys.exit(75 if terminated else 0)
"""

# Keeps what it was given on its standard input; ends with the code that the test has put into NAME.code.
NOTE_ONLY = """
os.chdir(FAKE)
write(f"{NAME}.stdin", sys.stdin.read())
sys.exit(int(read(f"{NAME}.code")) if exists(f"{NAME}.code") else 0)
"""

# Few imports: a test may start a hundred of these.
HEAD = """#!{python} -IS
import os, sys, time
FAKE, NAME = {folder!r}, {name!r}

def write(name, text, mode="w"):
    with open(os.path.join(FAKE, name), mode) as file:
        file.write(text)

def read(name):
    with open(os.path.join(FAKE, name)) as file:
        return file.read()

def exists(name):
    return os.path.exists(os.path.join(FAKE, name))

def remove(name):
    if exists(name):
        os.remove(os.path.join(FAKE, name))

write("calls", repr([NAME, *sys.argv[1:]]) + "\\n", "a")
"""


def make_checkout(folder: Path) -> Path:
    """Makes the project's folder as far as the scripts look at it, small enough to be sent around."""
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "avshare_jax").mkdir()
    (folder / "main.py").touch()
    pins = (f"{pin} \\\n    --hash=sha256:0\n" for pin in ("flax==1.0", "jax==9.8.7", "jaxlib==9.8.6"))
    (folder / "requirements.txt").write_text("".join(pins))
    return folder


class Fakes:
    """A folder of fakes, and how scripts of a checkout fare with them."""

    def __init__(self, folder: Path, checkout: Path):
        self.folder, self.bin, self.checkout = folder, folder / "bin", checkout
        self.bin.mkdir()

    def program(self, name: str, body: str) -> None:
        path = self.bin / name
        path.write_text(HEAD.format(python=sys.executable, folder=str(self.folder), name=name) + body)
        path.chmod(0o755)

    def scenario(self, *lines: str) -> None:
        (self.folder / "scenario").write_text("\n".join(lines))

    def calls(self, *start: str) -> list[list[str]]:
        """The calls so far, of one program or with the same first words."""
        path = self.folder / "calls"
        calls = [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if call[: len(start)] == list(start)]

    def starts(self, machine: str) -> list[tuple[list[str], dict[str, str]]]:
        """Arguments and environment of each start of main.py on a machine."""
        path = self.folder / f"starts-{machine}"
        return [ast.literal_eval(line) for line in path.read_text().splitlines()] if path.exists() else []

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "FAKES": str(self.folder), **variables}

    def start(self, script: str, *arguments: str, **variables: str) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", f"launch/{script}", *arguments],
            cwd=self.checkout,
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        process = self.start(script, *arguments, **variables)
        output, errors = process.communicate(timeout=TIMEOUT)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
