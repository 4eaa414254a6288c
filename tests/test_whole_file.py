"""A file is there whole or not at all."""

import errno
import os
import resource
from pathlib import Path

import pytest

from lightning_ham.whole_file import replace_file


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, os.strerror(errno.EIO))])
def test_what_breaks_off_leaves_the_file_of_before_and_nothing_else(tmp_path, monkeypatch, error):
    replace_file(tmp_path / "a", b"before", "a.partial")

    def fail(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(type(error)):
            replace_file(tmp_path / "a", b"after", "a.partial")
    assert files(tmp_path) == {"a": b"before"}
    replace_file(tmp_path / "a", b"after", "a.partial")
    assert files(tmp_path) == {"a": b"after"}


def test_where_there_is_no_room_nothing_stays(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_file(tmp_path / "a", bytes(5000), "a.partial")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {}


def test_what_a_killed_process_left_is_no_hindrance_and_no_way_out(tmp_path):
    (tmp_path / "precious").write_bytes(b"kept")
    (tmp_path / "a.partial").symlink_to(tmp_path / "precious")
    replace_file(tmp_path / "a", b"new", "a.partial")
    assert files(tmp_path) == {"a": b"new", "precious": b"kept"}
