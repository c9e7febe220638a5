"""Requests that go on and on while something is done to the node, and a count of those that failed."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

CLIENTS = 4
TIMEOUT = 30.0


class Load:
    """
    Sends GETs over kept-alive connections for as long as the block lasts.

    ``failures`` counts answers other than 200 and broken connections, by what they were; ``answers``
    counts the texts that came back.
    """

    def __init__(self, port: int, path: str) -> None:
        self.failures: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._port = port
        self._path = path
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(CLIENTS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def versions(self) -> set[str]:
        """The versions that answered."""
        return {text.split()[0] for text in list(self.answers)}

    def wait_for_more(self, number: int = 50) -> None:
        """Wait until so many more requests were answered."""
        target = self.answers.total() + number
        deadline = time.monotonic() + TIMEOUT
        while self.answers.total() < target:
            assert time.monotonic() < deadline, f"requests are not answered any more: {self.failures}"
            time.sleep(0.005)

    def _send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        while not self._over.is_set():
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                text = answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                self.failures[type(error).__name__] += 1
                connection.close()
                time.sleep(0.01)
                continue
            if answer.status == http.client.OK:
                self.answers[text] += 1
            else:
                self.failures[f"{answer.status}: {text[:200]}"] += 1
            time.sleep(0.002)
        connection.close()
