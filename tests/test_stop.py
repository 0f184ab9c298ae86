"""Ctrl-C once ends in good order, twice at once."""

import signal
import threading

import pytest

from pixelwise.training.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_raises_a_flag(number: int) -> None:
    said: list[str] = []
    with StopRequest(lambda: said.append("stopping")) as stopped:
        assert not stopped()
        signal.raise_signal(number)
        assert stopped()
        assert said == ["stopping"]


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_insists(second: int) -> None:
    said: list[str] = []
    with StopRequest(lambda: said.append("stopping")):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(second)
    assert said == ["stopping"], "it is said once"


@pytest.mark.parametrize("ending", ["quiet", "signalled", "failed"])
def test_the_previous_handlers_are_put_back(ending: str) -> None:
    def handler(_number: int, _frame: object) -> None:
        """Do nothing."""

    before = [signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with (
            pytest.raises(ZeroDivisionError) if ending == "failed" else StopRequest(lambda: None),
            StopRequest(lambda: None),
        ):
            if ending == "signalled":
                signal.raise_signal(signal.SIGTERM)
            if ending == "failed":
                _ = 1 / 0
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == [handler, handler]
    finally:
        for number, previous in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, previous)


def test_without_a_request_nothing_is_asked() -> None:
    with StopRequest(lambda: pytest.fail("nobody asked")) as stopped:
        assert not stopped()


def test_the_flag_stays_after_the_context() -> None:
    with StopRequest(lambda: None) as stopped:
        signal.raise_signal(signal.SIGINT)
    assert stopped()


def test_outside_the_main_thread_it_changes_nothing() -> None:
    before, answers = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with StopRequest(lambda: None) as stopped:
            answers.extend([stopped(), signal.getsignal(signal.SIGINT) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=10)
    assert answers == [False, True]
