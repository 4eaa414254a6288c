"""Two processes, as on two machines, share a sweep on one PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest


def programs() -> Path:
    """Return the folder of PostgreSQL's programs; skip the test, except in CI, where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        reason = "PostgreSQL's server is not installed (Debian's package postgresql has it)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return (found[-1] if found else Path(on_path)).parent


def somebody_else() -> dict[str, object]:
    """Return the options of a process that PostgreSQL allows: it refuses to be run by root."""
    if os.geteuid() != 0:
        return {}
    names = [user.pw_name for user in pwd.getpwall()]
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty database, whose server is ended after the test."""
    binaries, account = programs(), somebody_else()
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))  # not pytest's, which others may not enter
    if account:
        os.chown(folder, account["user"], account["group"])
    data = folder / "data"
    initdb = [binaries / "initdb", "-D", data, "-A", "trust", "-U", "ada", "--no-sync", "--locale=C", "-E", "UTF8"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **account)
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"-p{port}", "-F", "-clisten_addresses=127.0.0.1", f"-cunix_socket_directories={folder}"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **account
        )
    try:
        ready = [binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "ada", "-d", "postgres"]
        while subprocess.run(ready, check=False).returncode != 0:
            assert server.poll() is None, (folder / "log").read_text()
        yield f"postgresql+psycopg://ada:secret@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait for the connections of this process
        server.wait()
        shutil.rmtree(folder)


def test_two_processes_share_one_sweep(database, sweep, tmp_path, recipe):
    options = ["tiny.yaml", f"--storage={database}", "--sampler=random", "--jobs=1", "--pruner=none", "--trials=6"]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        shutil.copy(recipe, folder)
    running = [sweep.start(folder, *options, PACE="0.1") for folder in folders]
    assert [started.wait() for started in running] == [0, 0], [started.output for started in running]
    study = optuna.load_study(study_name="sweep-tiny", storage=database)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 6
    trained = [{path.name.split("-")[1] for path in folder.glob("runs/sweep-tiny/trials/*.log")} for folder in folders]
    assert trained[0] | trained[1] == set("012345")
    assert not trained[0] & trained[1], "a trial was trained twice"
    assert all(trained), "one process has done nothing"
    assert len({trial.params["model.schedule.learning_rate"] for trial in study.trials}) == 6
    tables = [(folder / "runs/sweep-tiny/trials.csv").read_text() for folder in folders]
    assert tables[0] == tables[1], "the two do not agree on the result"
    for started, folder in zip(running, folders, strict=True):
        assert "secret" not in started.output
        assert not list(folder.rglob("study.db"))
