"""Work ahead in a thread, so that compute need not wait for files."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

__all__ = ["prefetch"]

_Item = TypeVar("_Item")


class _End:
    """Last thing in the queue, with what stopped the producer if anything did."""

    def __init__(self, fault: BaseException | None) -> None:
        self.fault = fault


def prefetch(items: Iterator[_Item], depth: int) -> Generator[_Item, None, None]:
    """Yield ``items`` in order while a thread makes up to ``depth`` of them ahead.

    The thread ends when the items end, when making one fails (the consumer gets the
    exception), and when the consumer stops early.

    Example:
        >>> list(prefetch(iter("abc"), depth=2))
        ['a', 'b', 'c']
    """
    ready: queue.Queue[_Item | _End] = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def hand_over(item: _Item | _End) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        fault: BaseException | None = None
        try:
            for item in items:
                hand_over(item)
                if stopped.is_set():
                    break
        except BaseException as caught:  # noqa: BLE001 - raised again by the consumer
            fault = caught
        hand_over(_End(fault))

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.fault is not None:
                    raise item.fault
                return
            yield item
    finally:
        stopped.set()
        thread.join()
