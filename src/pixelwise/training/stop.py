"""Ctrl-C asks for an orderly end; a second one insists."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class StopRequest:
    """While this context is open, the first SIGINT or SIGTERM only raises a flag; the second one interrupts.

    Args:
        on_request: called once, when the flag is raised.
    """

    def __init__(self, on_request: Callable[[], None]) -> None:
        self._on_request = on_request
        self._requested = False
        self._previous: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether someone asked for the end."""
        return self._requested

    def __enter__(self) -> "StopRequest":  # noqa: PYI034  beartype does not know Self
        if threading.current_thread() is threading.main_thread():  # only there may handlers be set
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
        self._on_request()
