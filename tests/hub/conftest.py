"""Models to save and to push, and processes that use the Hub: the real client, over HTTP, with a home of their own."""

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from lightning_ham.hub import TrainedModel

OPTIONS = {"controller_size": 6, "leaf_size": 4}
NUMBERS = itertools.count(1)

# Imports once what takes seconds to import, and forks for every process, which ends without taking apart what it has
# inherited. What huggingface_hub does is decided by the variables that are set when it is imported: that is left to
# each.
FORKS = """
import atexit, os, sys

status = 1  # of an exception that nobody handles

@atexit.register
def end():  # is called last, as it is the first
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)

import gc, json
import httpx2, jinja2, pytorch_lightning.cli, rich.progress, safetensors.torch, torch, yaml
from lightning_ham import command_line, training
from lightning_ham.runs import progress
from lightning_ham.hub import pretrained
assert not {"huggingface_hub", "wandb"} & sys.modules.keys()

gc.freeze()  # what is inherited need not be searched for garbage
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
        continue
    child = os.fork()
    if child == 0:
        os.chdir(job["folder"])
        os.environ.clear()
        os.environ.update(job["environment"])
        for number, name in enumerate((os.devnull, job["stdout"], job["stderr"])):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        try:
            exec(compile(job["code"], "<test>", "exec"), {"__name__": "__main__"})
            sys.exit(0)
        except SystemExit as ended:
            status = ended.code
            raise
    print(child, flush=True)
"""

LOAD = """
import json, logging, sys, time
logging.basicConfig(format="%(message)s")
logging.getLogger("lightning_ham").setLevel("INFO")
from lightning_ham import from_pretrained
start = time.perf_counter()
try:
    model = from_pretrained(*ARGUMENTS, **OPTIONS)
except Exception as error:
    result = {"error": type(error).__name__, "message": str(error)}
else:
    result = {"weights": model.weights_sha256(), "answers": model.solve([[(3, 4), (1, 2), (3, 0)], [(5, 5)]])}
print(json.dumps(result | {"seconds": time.perf_counter() - start}))
"""

PUSH = """
import json, logging, time
logging.basicConfig(format="%(message)s")
logging.getLogger("lightning_ham").setLevel("INFO")
from lightning_ham import from_pretrained
model = from_pretrained(FOLDER)
start = time.perf_counter()
try:
    result = {"address": model.push_to_hub(*ARGUMENTS, **OPTIONS)}
except Exception as error:
    result = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(result | {"seconds": time.perf_counter() - start}))
"""


@dataclasses.dataclass
class Finished:
    """How a process ended."""

    returncode: int
    stdout: str
    stderr: str


class Machine:
    """A machine that knows a hub: a home folder, and processes that have it."""

    def __init__(self, forks, folder, environment):
        self.forks = forks
        self.folder = folder
        self.environment = environment
        self.outputs = {}

    @property
    def cache(self):
        return self.folder / "huggingface" / "hub"

    def start(self, code, **environment):
        """Start a process that executes code; return its id."""
        number = next(NUMBERS)
        stdout, stderr = (self.folder / f"{number}.{name}" for name in ("stdout", "stderr"))
        job = {
            "folder": str(self.folder),
            "environment": self.environment | {"HF_HOME": str(self.folder / "huggingface")} | environment,
            "code": code,
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        process = int(self._ask(job))
        self.outputs[process] = stdout, stderr
        return process

    def wait(self, process):
        returncode = int(self._ask({"wait": process}))
        return Finished(returncode, *(path.read_text() for path in self.outputs[process]))

    def _ask(self, job):
        print(json.dumps(job), file=self.forks.stdin, flush=True)
        return self.forks.stdout.readline()

    def python(self, code, **environment):
        return self.wait(self.start(code, **environment))

    def start_command(self, name, *arguments, **environment):
        """Start ``python -m lightning_ham.<name>``."""
        module = f"lightning_ham.{name}" if name != "models" else "lightning_ham.models.__main__"
        code = f"import sys\nfrom lightning_ham import command_line\nimport {module}\n"
        code += f"sys.argv = {[name, *map(str, arguments)]!r}\n"
        code += f"command_line.run(sys.modules[{module!r}].main)"
        return self.start(code, **environment)

    def command(self, name, *arguments, **environment):
        return self.wait(self.start_command(name, *arguments, **environment))

    def start_load(self, *arguments, environment=(), **options):
        code = LOAD.replace("ARGUMENTS", repr(arguments)).replace("OPTIONS", repr(options))
        return self.start(code, **dict(environment))

    def push(self, folder, *arguments, environment=(), **options):
        """Push a saved model; return the address, or the error; the seconds, and what was logged."""
        code = PUSH.replace("FOLDER", repr(str(folder))).replace("ARGUMENTS", repr(arguments))
        return self.loaded(self.start(code.replace("OPTIONS", repr(options)), **dict(environment)))

    def loaded(self, process):
        """What came of a load: the weights' hash and answers, or the error; the seconds, and what was logged."""
        finished = self.wait(process)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout) | {"log": finished.stderr}

    def load(self, *arguments, **options):
        return self.loaded(self.start_load(*arguments, **options))

    def half_written(self):
        """What a download that failed has left in the cache."""
        files = [path for path in self.cache.rglob("*") if path.is_file()]
        return [path for path in files if path.name.endswith(".incomplete") or path.parent.name == "refs"]


@pytest.fixture(scope="session")
def forks():
    kept = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(
        command,
        env=kept,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # see tests/test_fit.py
    ) as server:
        yield server
        server.stdin.close()


@pytest.fixture
def hub(hub_server):
    """The hub on loopback, empty and without faults."""
    hub_server.clear()
    return hub_server


@pytest.fixture
def make_machine(forks, environment, request, tmp_path):
    """Makes a machine on which a hub is known, the one on loopback if none is given, with a token or without one."""

    def make(token="hf_ada", hub_variables=None, **variables):
        folder = tmp_path / f"machine-{next(NUMBERS)}"
        folder.mkdir()
        mine = {name: value for name, value in environment.items() if not name.startswith("HF_")}
        mine |= hub_variables or request.getfixturevalue("hub").variables
        mine |= {"HOME": str(folder)} | ({"HF_TOKEN": token} if token else {}) | variables
        return Machine(forks, folder, mine)

    return make


@pytest.fixture
def machine(make_machine):
    return make_machine()


@pytest.fixture
def name():
    """A name on the hub that no other test has."""
    return f"ada/model-{next(NUMBERS)}"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TrainedModel("sort", controller_options=OPTIONS)


@pytest.fixture
def folder(model, tmp_path):
    """A saved model."""
    model.save_pretrained(tmp_path / "ham-tiny")
    return tmp_path / "ham-tiny"


@pytest.fixture
def cache(tmp_path):
    """The folder of a cache of models from the Hub, empty."""
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def put(cache):
    """Puts a folder into the cache as a model that was downloaded; returns where it is then."""

    def put(repo_id, folder):
        repository = cache / f"models--{repo_id.replace('/', '--')}"
        snapshot = repository / "snapshots" / ("a" * 40)
        snapshot.mkdir(parents=True)
        for path in folder.iterdir():
            (snapshot / path.name).write_bytes(path.read_bytes())
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("a" * 40)
        return snapshot

    return put


@pytest.fixture
def write_checkpoint(model, tmp_path):
    """Writes a checkpoint as Lightning does, with entries replaced, or left out where they are None."""

    def write(name="model.ckpt", hyper_parameters=(), state_dict=(), **entries):
        state = {f"model.{key}": value for key, value in model.state_dict().items()}
        parameters = {
            "task": "sort",
            "controller": "lstm_ham",
            "controller_options": model.controller_options,
            "learning_rate": 0.003,
        }
        checkpoint = {
            "epoch": 3,
            "global_step": 300,
            "state_dict": _without_none(state | dict(state_dict)),
            "hyper_parameters": _without_none(parameters | dict(hyper_parameters)),
        } | entries
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_without_none(checkpoint), path)
        return path

    return write


def _without_none(mapping):
    return {key: value for key, value in mapping.items() if value is not None}


@pytest.fixture
def published(model, folder, hub, name):
    """The name of a model that is on the hub."""
    hub.write(name, {path.name: path.read_bytes() for path in folder.iterdir()})
    return name
