"""Parts that are read once, each in the background while the one before it works."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock, Thread
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """What `read` gives; asking for it starts the reading of what is needed `then`."""

    def __init__(self, read: Callable[[], T], then: "ReadAhead[Any] | None" = None) -> None:
        self._read, self._then = read, then
        self._lock = Lock()
        self._reading: tuple[Thread, Future[T]] | None = None

    def start(self) -> tuple[Thread, "Future[T]"]:
        """Starts reading, unless that has been done."""
        with self._lock:
            if self._reading is None:
                result: Future[T] = Future()
                self._reading = Thread(target=self._run, args=[result]), result
                self._reading[0].start()
            return self._reading

    def get(self) -> T:
        """Waits for it. Raises what `read` raises now, whatever it did when it was read ahead."""
        thread, result = self.start()
        thread.join()
        if self._then is not None and result.exception() is None:
            self._then.start()
        return result.result()

    def _run(self, result: "Future[T]") -> None:
        try:
            result.set_result(self._read())
        except BaseException as error:  # is raised by a `get` that waits for this
            with self._lock:
                self._reading = None
            result.set_exception(error)


def ready(part: T | ReadAhead[T]) -> T:
    """The part itself, read or not."""
    either: Any = part
    return either.get() if isinstance(either, ReadAhead) else either
