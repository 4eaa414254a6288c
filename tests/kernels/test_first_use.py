"""What the first use of compiled loops says, and that Ctrl-C ends it."""

import contextlib
import signal
import threading
import time

import pytest

from lightning_ham.engines.first_use import FirstUse


@pytest.mark.parametrize("failure", [None, RuntimeError("no compiled object yet")])
def test_ctrl_c_that_the_compiler_drops_is_not_lost(failure):
    """Its callbacks cannot raise; then it fails for another reason, or does not fail."""
    first_use = FirstUse("Compiling.")

    def compile_(is_interrupted):
        with first_use():
            if is_interrupted:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            if failure:
                raise failure

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            compile_(is_interrupted=True)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with pytest.raises(RuntimeError) if failure else contextlib.nullcontext():
            compile_(is_interrupted=False)
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_takes_long_is_said_once(monkeypatch, caplog):
    timer = threading.Timer
    caplog.set_level("INFO")

    def messages(first_use: FirstUse, seconds: float) -> list[str]:
        caplog.clear()
        with first_use():
            time.sleep(seconds)
        return caplog.messages

    kept_on_disk = FirstUse("Compiling.")
    assert messages(kept_on_disk, 0) == []  # it is ready long before
    monkeypatch.setattr(threading, "Timer", lambda _, *arguments: timer(0.01, *arguments))
    assert messages(kept_on_disk, 0.2) == []
    new = FirstUse("Compiling.")
    assert messages(new, 0.2) == ["Compiling."]
    assert messages(new, 0.2) == []


def test_a_use_that_failed_was_not_the_first(monkeypatch, caplog):
    timer = threading.Timer
    monkeypatch.setattr(threading, "Timer", lambda _, *arguments: timer(0.01, *arguments))
    caplog.set_level("INFO")
    first_use = FirstUse("Compiling.")

    def fail():
        with first_use():
            time.sleep(0.2)
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            fail()
    assert caplog.messages == ["Compiling."] * 2
