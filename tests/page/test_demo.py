"""The command that writes or serves the page."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
import yaml

from lightning_ham import from_pretrained
from lightning_ham.demo import main
from lightning_ham.hub import TrainedModel
from lightning_ham.page.server import make_server
from lightning_ham.page.site import site_files

FILES = {"index.html", "page.css", "page.js", "models.js", "README.md"}


def shown_models(folder):
    text = (folder / "models.js").read_text()
    return [model["name"] for model in json.loads(text.removeprefix("globalThis.lightningHamModels = ").rstrip(";\n"))]


def test_output_is_a_complete_space(tmp_path, capsys):
    assert main(["ham-stack", "ham-queue", "--output", str(tmp_path / "new" / "site")]) == 0
    folder = tmp_path / "new" / "site"
    assert capsys.readouterr().out == f"{folder / 'index.html'}\n"
    assert {path.name for path in folder.iterdir()} == FILES
    assert shown_models(folder) == ["ham-stack", "ham-queue"]
    _, metadata, text = (folder / "README.md").read_text().split("---\n", 2)
    settings = yaml.safe_load(metadata)
    assert settings["sdk"] == "static"
    assert settings["app_file"] == "index.html"
    assert len(settings["short_description"]) <= 60  # the Hub takes no longer one
    assert "- `ham-stack` (stack)\n- `ham-queue` (queue)\n" in text
    assert "$ hf upload" in text


def test_a_model_has_the_lstm_of_its_task_beside_it(tmp_path):
    assert main(["ham-sort", "--output", str(tmp_path)]) == 0
    assert shown_models(tmp_path) == ["ham-sort", "lstm-sort"]


def test_models_of_ones_own_are_called_by_their_folders(tmp_path):
    model = from_pretrained("ham-queue")
    for folder in ("mine/model", "yours/model", "other/mine/model"):
        model.save_pretrained(tmp_path / folder)
    names = [str(tmp_path / name) for name in ("mine/model", "yours/model", "other/mine/model")]
    assert main([*names, "--output", str(tmp_path / "site")]) == 0
    assert shown_models(tmp_path / "site") == ["mine", "yours", "mine 2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ham-srot"], "did you mean 'ham-sort'?"),
        (["no/such/folder"], "there is no no/such/folder"),
        (["ham-sort", "--port", "0"], "Expected a port from 1 to 65535, but got '0'"),
        (["ham-stack", "--output", "site", "--port", "8000"], "Expected --output alone"),
        (["ham-stack", "--output", "a file"], "Expected a folder for the page, but got the file a file"),
        (["ham-stack", "--outptu", "site"], "did you mean --output?"),
    ],
)
def test_wrong_use_is_told_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a file"]


def test_a_page_without_models_is_refused():
    with pytest.raises(ValueError, match="Expected at least one model"):
        site_files([])


def test_a_controller_that_javascript_does_not_know_is_refused():
    model = TrainedModel("stack", "raw_ham")
    model.controller_name = "mine"
    with pytest.raises(ValueError, match="which the page can run, but runs/x has 'mine'"):
        site_files([("runs/x", model)])


def test_a_name_cannot_end_the_script():
    files = site_files([("</script><b>", from_pretrained("ham-queue"))])
    assert b"</script>" not in files["models.js"]


@pytest.fixture
def server():
    server = make_server({"index.html": b"<p>here</p>", "page.js": b"1"})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_server_gives_the_files_and_nothing_else(server):
    address = f"http://127.0.0.1:{server.server_port}/"
    with urllib.request.urlopen(address) as answer:
        assert answer.read() == b"<p>here</p>"
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for name in ("etc/passwd", "../pyproject.toml", "page.css"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address + name)


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"Expected a free port, but {port} is none: another program uses it"):
            make_server({}, port)


def test_the_command_serves_until_interrupted():
    command = [sys.executable, "-m", "lightning_ham.demo", "ham-queue", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        found = re.match(r"(http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", process.stdout.readline())
        with urllib.request.urlopen(found[1]) as page:
            assert b"<title>Watch a learned algorithm</title>" in page.read()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert complaints == ""
