"""Compiled loops from one process to the next: never stale, never believed when damaged, and not needed."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_ham

TINY = """
from lightning_ham.engines.kernels.arithmetic import compiled, sigmoid

@compiled
def twice(x):
    return 2 * sigmoid(x)

@compiled
def thrice(x):
    return twice(x) + sigmoid(x)
"""
RUN = """
from lightning_ham.engines.kernels import tiny
print(tiny.twice(0.0), tiny.thrice(0.0), sum(tiny.twice.stats.cache_hits.values()), tiny.twice.stats.cache_path)
"""
NOWHERE = "/dev/null/folder"
"""A folder that nobody can make, root neither."""


class Copy:
    """A copy of the compiled loops' package, and one of its own among them, which calls another file's."""

    def __init__(self, folder: Path, compiled: Path | None = None) -> None:
        self.folder = folder
        package = folder / "lightning_ham"
        self.kernels = package / "engines" / "kernels"
        self.cache = self.kernels / "__pycache__"
        self.home = folder / "home"
        self.stderr = ""
        if compiled:
            shutil.copytree(compiled, folder, dirs_exist_ok=True)
            return
        source = Path(lightning_ham.__file__).parent
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source / "engines" / "kernels", self.kernels, ignore=ignore)
        for beside in ("__init__.py", "whole_file.py"):
            shutil.copy(source / beside, package)
        (package / "memory").mkdir()
        shutil.copy(source / "memory" / "constants.py", package / "memory")
        for above in ("engines", "memory"):  # they would import PyTorch
            (package / above / "__init__.py").touch()
        (self.kernels / "tiny.py").write_text(TINY)
        self.home.mkdir()

    def run(
        self, *prefix: str, script: str = RUN, limit: int | None = None, **environment: str
    ) -> tuple[float, float, int]:
        """What the loops say in a new process, and how many came from the disk; ``limit`` is a file's largest size."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_", "HOME"))}
        environment = {"HOME": str(self.home), "PYTHONPATH": str(self.folder)} | environment
        done = subprocess.run(
            [*prefix, sys.executable, "-c", script],
            cwd=self.home,
            env=kept | {name: value for name, value in environment.items() if value},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=limit and (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))),
        )
        assert done.returncode == 0, done.stderr
        self.stderr = done.stderr
        twice, thrice, hits, self.path = done.stdout.split()
        return float(twice), float(thrice), int(hits)

    def kept(self, folder: Path | None = None) -> set[Path]:
        return set((folder or self.cache).glob("*.nbc*"))

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.kernels / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    assert Copy(folder).run() == COMPILED
    return folder


@pytest.fixture
def compiled(tmp_path: Path, compiled_once: Path) -> Copy:
    """A copy whose loops another process has compiled."""
    return Copy(tmp_path, compiled_once)


COMPILED, LOADED = (1.0, 1.5, 0), (1.0, 1.5, 1)


def test_the_next_process_has_what_one_has_compiled(compiled: Copy) -> None:
    assert compiled.run() == LOADED
    assert compiled.stderr == ""
    assert Path(compiled.path) == compiled.cache


def test_an_edit_of_another_file_is_never_missed(compiled: Copy) -> None:
    before = compiled.kept()
    compiled.edit(
        "arithmetic.py", "return one / (one + exponential(-x))", "return two_thirds / (one + exponential(-x))"
    )
    compiled.edit(
        "arithmetic.py",
        "    one = type(x)(1)\n    return two",
        "    one, two_thirds = type(x)(1), 2 / 3\n    return two",
    )
    twice, thrice, hits = compiled.run()
    assert (twice, thrice, hits) == (pytest.approx(2 / 3), 1.0, 0)
    assert not before & compiled.kept(), "what nobody will ask for again is gone"
    assert compiled.run() == (twice, thrice, 1)


def test_an_edit_while_a_process_runs_is_not_taken_for_what_it_has_imported(copy: Copy) -> None:
    edit = f"""
import pathlib
from lightning_ham.engines.kernels import tiny
path = pathlib.Path(tiny.__file__)
path.write_text(path.read_text().replace("2 *", "4 *"))
{RUN}
"""
    # Else Python could take the compiled file of a source with the same size and second for that of the edited one.
    assert copy.run(script=edit, PYTHONDONTWRITEBYTECODE="1") == COMPILED
    assert not copy.kept()
    assert copy.run(PYTHONDONTWRITEBYTECODE="1") == (2.0, 2.5, 0)


def test_code_for_another_processor_is_not_taken(compiled: Copy) -> None:
    for hits in (0, 1):
        assert compiled.run(NUMBA_CPU_NAME="generic") == (1.0, 1.5, hits)
    assert compiled.run() == LOADED


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("left", [None, 0, 40, -1])
def test_damaged_files_are_made_anew(compiled: Copy, left: int | None) -> None:
    for path in compiled.kept():
        content = path.read_bytes()
        path.write_bytes(flip(content) if left is None else content[:left])
    assert compiled.run() == COMPILED
    assert compiled.run() == LOADED
    assert compiled.stderr == ""


def test_what_stands_in_a_files_place_is_left_there(compiled: Copy) -> None:
    for path in compiled.kept():
        path.unlink()
        path.mkdir()
    assert compiled.run() == COMPILED
    assert compiled.run() == LOADED, "the next folder is taken"


def test_a_folder_of_ones_own_comes_first(copy: Copy, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for expected in (COMPILED, LOADED):
        assert copy.run(NUMBA_CACHE_DIR=str(mine)) == expected
    assert not copy.kept()
    assert copy.kept(Path(copy.path))
    assert Path(copy.path).is_relative_to(mine)


def assert_one_warning(copy: Copy) -> None:
    (line,) = copy.stderr.splitlines()
    assert line.startswith("Compiled loops cannot be kept (")
    assert line.endswith("Set NUMBA_CACHE_DIR to a folder that can be written.")


@pytest.mark.parametrize("folder", ["", NOWHERE])
def test_where_nothing_can_be_kept_one_line_says_so_and_the_loops_run(copy: Copy, folder: str) -> None:
    copy.cache.write_text("a file where there should be a folder")
    for _ in range(2):
        assert copy.run(HOME=NOWHERE, NUMBA_CACHE_DIR=folder) == COMPILED
        assert_one_warning(copy)
    assert copy.run(NUMBA_CACHE_DIR=folder) == COMPILED, "the user's own folder is taken"
    assert copy.stderr == ""
    assert copy.run(NUMBA_CACHE_DIR=folder) == LOADED


def test_a_full_disk_leaves_nothing_behind(copy: Copy) -> None:
    assert copy.run(limit=1000, PYTHONDONTWRITEBYTECODE="1") == COMPILED
    assert_one_warning(copy)
    assert not [path for path in copy.folder.rglob("*") if ".nbc" in path.name]


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="only root can become another user")
def test_another_user_without_a_home_takes_what_is_there_and_needs_no_folder(copy: Copy) -> None:
    """In a container: nothing is this user's own, and the package is another's, who may have compiled the loops."""
    capability = "+dac_read_search"  # to read this user's Python
    user = ["setpriv", "--reuid=12345", "--regid=12345", "--clear-groups", "--bounding-set=-all," + capability]
    user += [f"--inh-caps={capability}", f"--ambient-caps={capability}", "--no-new-privs"]
    copy.home.chmod(0o777)
    assert copy.run(*user, HOME="") == COMPILED
    assert_one_warning(copy)
    assert not list(copy.home.iterdir()), "no folder ~ either"
    copy.run()
    assert copy.run(*user, HOME="") == LOADED
    assert copy.stderr == ""
