"""What the first use of compiled loops says, and that Ctrl-C ends it."""

import contextlib
import signal
import threading

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


class TimeIsUp:
    """A timer whose time has come when it is started."""

    def __init__(self, seconds, function, arguments):
        self.start = lambda: function(*arguments)

    def cancel(self):
        pass


def test_what_takes_long_is_said_once(monkeypatch, caplog):
    caplog.set_level("INFO")

    def messages(first_use: FirstUse) -> list[str]:
        caplog.clear()
        with first_use():
            pass
        return caplog.messages

    kept_on_disk = FirstUse("Compiling.")
    assert messages(kept_on_disk) == []  # it is ready long before
    monkeypatch.setattr(threading, "Timer", TimeIsUp)
    assert messages(kept_on_disk) == []
    new = FirstUse("Compiling.")
    assert messages(new) == ["Compiling."]
    assert messages(new) == []


def test_a_use_that_failed_was_not_the_first(monkeypatch, caplog):
    monkeypatch.setattr(threading, "Timer", TimeIsUp)
    caplog.set_level("INFO")
    first_use = FirstUse("Compiling.")

    def fail():
        with first_use():
            raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            fail()
    assert caplog.messages == ["Compiling."] * 2
