"""The time of Numba's compiling is measured in all threads."""

import subprocess
import sys
import threading
import time

from lightning_ham.controllers import compile_seconds
from lightning_ham.engines.kernels.compile_time import CompileTime

PROGRAM = """
import time
import numba
from lightning_ham.controllers import compile_seconds

assert compile_seconds() == 0

@numba.njit
def inner(x):
    return x + 1

@numba.njit
def outer(x):
    return inner(x) * 2

start = time.perf_counter()
outer(3)
taken = time.perf_counter() - start
assert 0.5 * taken < compile_seconds() <= taken, (taken, compile_seconds())
before = compile_seconds()
outer(4)
assert compile_seconds() == before
"""


def test_it_is_what_the_first_call_takes_and_nothing_afterwards():
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)


def test_threads_that_wait_for_each_other_count_once(monkeypatch):
    watch, clock = CompileTime(), iter([10.0, 13.0, 20.0, 21.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    threads = [threading.Thread(target=watch.on_start, args=[None]) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert watch.seconds == 0
    for _ in range(3):
        watch.on_end(None)
    assert watch.seconds == 3
    watch.on_start(None)
    watch.on_end(None)
    assert watch.seconds == 4


def test_without_numba_there_is_none(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert compile_seconds() == 0
