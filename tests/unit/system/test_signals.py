"""Signals that are waited for: none is lost, none comes late."""

import signal
import threading

import pytest

from flopsd.system.signals import awaited
from tests.support.process import PATIENCE_SECONDS


def raise_here(number: int) -> None:
    signal.pthread_kill(threading.get_ident(), number)


def test_a_signal_before_the_wait_is_returned_by_it() -> None:
    with awaited(signal.SIGUSR1, signal.SIGUSR2) as wait:
        raise_here(signal.SIGUSR2)
        assert wait(PATIENCE_SECONDS) is signal.SIGUSR2
        assert wait(0) is None
        assert wait(-1) is None


def test_a_signal_during_the_wait_ends_it() -> None:
    with awaited(signal.SIGUSR1) as wait:
        waiting = threading.get_ident()
        sender = threading.Thread(target=lambda: signal.pthread_kill(waiting, signal.SIGUSR1))
        sender.start()
        assert wait(PATIENCE_SECONDS) is signal.SIGUSR1
        sender.join()


def test_signals_not_waited_for_are_dropped_and_the_mask_is_restored() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with awaited(signal.SIGUSR1, signal.SIGUSR2):  # their default is to end the process
        raise_here(signal.SIGUSR1)
        raise_here(signal.SIGUSR2)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_threads_started_within_do_not_receive_the_signals() -> None:
    seen: list[set[signal.Signals | int]] = []
    with awaited(signal.SIGUSR1):
        thread = threading.Thread(target=lambda: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        thread.start()
        thread.join()
    assert signal.SIGUSR1 in seen[0]
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_the_mask_is_restored_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), awaited(signal.SIGUSR1):
        raise ZeroDivisionError
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
