"""What happens per request or per sample, in Rust (``engine/``)."""

from collections.abc import Sequence
from os import PathLike
from types import TracebackType
from typing import Self, final

__all__ = [
    "Clock",
    "Load",
    "SharedConsumer",
    "SharedCounter",
    "SharedProducer",
    "SharedReader",
    "SharedValue",
    "SharedWriter",
    "StateServer",
    "__version__",
    "run_gateway",
    "simulate",
]

__version__: str

def run_gateway(
    control_socket: str, table_path: str, *, workers: int | None = None, take_over: bool = False
) -> None:
    """
    Runs the gateway in this thread, with the interpreter lock released.

    Returns once another one has taken its place, or after SIGTERM or SIGINT, once what is in flight has
    ended, 10 s at most. The signals are the engine's from then on, so this is for a process that does
    nothing else.

    Args:
        control_socket: Path of the Unix socket at which the node speaks to the gateway, at most 107 bytes.
        table_path: File in which the last routing table is kept, and from which it is read at the start.
        workers: Threads that serve clients, 1 to 64; ``None``: one for each four cores.
        take_over: Take the place of the gateway that runs there, if one does, without a connection refused
            or reset: it hands its sockets over and ends with what it carries, after an hour at most.

    Raises:
        OSError: The control socket cannot be made, or another gateway runs there, ``workers`` is out of
            range, or the one that runs did not hand over.
    """

def simulate(scenario: str) -> str:
    """
    Plays a scenario in virtual time, with the interpreter lock released.

    :mod:`unisono.gateway.simulation` is its typed face, and says what the fields mean. It can't be
    interrupted; ten million requests are its bound.

    Args:
        scenario: A JSON object.

    Returns:
        The report, a JSON object.

    Raises:
        ValueError: The scenario is malformed or out of range, or never ends; the message says what would
            be right.
    """

@final
class Clock:
    """
    A hybrid logical clock for all threads of a process: 48 bits of milliseconds and a counter of 16 bits.

    What it does is defined by :class:`unisono.timestamps.hybrid.HybridClock`, whose source it names; a stamp
    takes a tenth of a microsecond here.

    Args:
        start: A bound that every stamp must exceed, such as the last one kept from before a restart.
        max_drift_ms: How far ahead of this machine's clock a received stamp may be.

    Raises:
        OverflowError: An argument is negative or above 2**64 - 1.
    """

    def __new__(cls, *, start: int = 0, max_drift_ms: int = 500) -> Self: ...
    def now(self) -> int:
        """The stamp of a local event or of a message to be sent; above all before it, in any thread."""

    def observe(self, received: int) -> int:
        """
        The stamp of receiving a message that bears ``received``; above it and above all before.

        Raises:
            ValueError: It is more than ``max_drift_ms`` ahead; the clock stays as it was and counts it.
            OverflowError: It is negative or above 2**64 - 1.
        """

    def at(self, physical_ms: int, received: int | None) -> int:
        """As :meth:`now`, or :meth:`observe` of ``received``, at a time that is given: for comparing."""

    @property
    def last(self) -> int:
        """The greatest stamp given out or seen."""

    @property
    def refused(self) -> int:
        """Received stamps that were too far ahead."""

    @property
    def max_drift_ms(self) -> int:
        """How far ahead a received stamp may be, in milliseconds."""

@final
class Load:
    """
    Load on one URL, put on by a thread of its own; for one use.

    As a context manager it runs from the beginning of the block to its end; :meth:`run` runs it for its
    duration. Without ``rate`` each connection asks again as soon as it is answered (a closed loop). With it,
    requests come in a Poisson process whether answers come or not (an open loop), and a latency counts from
    the moment at which the request was to go out, also where it had to wait for a free connection.

    Args:
        url: ``http://HOST:PORT/PATH``.
        connections: Kept-alive connections at once, at least 1.
        rate: Requests per second; ``None``: a closed loop.
        duration: Seconds; ``None``: until the block ends.
        method: Of each request.
        body: Of each request.
        headers: Of each request, besides Host.
        timeout: Seconds from sending a request to the end of its answer.
        series: Report each failure with its time, 100 000 at most.
        samples: Report each request with its time, latency and status, 5 000 000 at most.
        seed: Of the arrivals of an open loop.

    Raises:
        ValueError: An argument is out of range or malformed; the message says what would be right.
    """

    def __new__(
        cls,
        url: str,
        *,
        connections: int = 16,
        rate: float | None = None,
        duration: float | None = None,
        method: str = "GET",
        body: bytes = b"",
        headers: Sequence[tuple[str, str]] = (),
        timeout: float = 30.0,
        series: bool = False,
        samples: bool = False,
        seed: int = 1,
    ) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Stops the load and waits for the answers that are due."""

    def run(self) -> str:
        """Puts the load on for its duration, which it needs; returns the report as :meth:`report` does."""

    def report(self) -> str:
        """
        Waits for the end of the load and returns its report, a JSON object.

        ``requests`` counts those that ended, ``failed`` those of them that failed; ``failures`` counts
        ``connect``, ``reset``, ``timeout`` and ``status`` (an answer of 400 or above), ``statuses`` the
        answers by status. ``seconds`` is the time to the last end, ``rate`` requests per second.
        ``latency_ms`` holds ``p50``, ``p90``, ``p99``, ``p99_9``, ``max`` and ``mean`` of the requests that
        were answered, with whatever status. ``series`` (if asked for) lists the failures as ``{"at":
        seconds since the start, "kind": ..., "status": ...}``. ``samples`` (if asked for) lists the requests
        that ended as ``[microseconds from the start to when it was to go out, microseconds from then to its
        end, status or 0]``. ``unsent`` counts what an open loop could not send, as all connections were busy.

        Raises:
            OSError: The URL's host is unknown, or the load could not run.
            RuntimeError: The load was never started.
        """

@final
class StateServer:
    """
    Serves plain reads and writes of shared state at a Unix socket, in a thread of its own, until closed.

    Args:
        listener: Descriptor of the socket, which listens; it is duplicated.
        behind: Path of the Unix socket to which all other requests are passed on.
        secret: What consistency tokens are signed with, 1 to 64 bytes.

    Raises:
        OSError: There is no such descriptor, or none are left.
        ValueError: The secret has another length.
    """

    def __new__(cls, listener: int, behind: str, secret: bytes) -> Self: ...
    def learn(self, credentials: bytes, prefix: str) -> None:
        """Who presents ``credentials`` as ``Authorization`` may read and write all keys under ``prefix``."""

    def forget(self) -> None:
        """Forget all that was learnt: those callers' next requests are passed on."""

    def apply(self, changes: Sequence[tuple[str, tuple[bytes, int, int] | None]], revision: int) -> None:
        """
        Take over what was committed up to ``revision``, all at once: to each key its value, the revision
        that made it and the one that last changed it, or ``None`` if it was removed.
        """

    def writes_descriptor(self) -> int:
        """A descriptor that is readable while writes wait; the server's own."""

    def take_writes(self) -> list[tuple[int, str, bytes]]:
        """The writes that wait, in their order: a number, the key, the value; each is to be answered."""

    def done(self, revisions: Sequence[tuple[int, int]]) -> None:
        """The writes of these numbers are durable, each at its revision."""

    def failed(self, numbers: Sequence[int], status: int, problem: bytes) -> None:
        """The writes of these numbers failed; their clients get this status and document."""

    def timestamps_descriptor(self) -> int:
        """A descriptor that is readable while timestamps are asked for; the server's own."""

    def take_timestamps(self) -> list[tuple[int, str, int]]:
        """
        Who asks for timestamps: a number, the prefix of the namespace, how many; each is to be answered.
        """

    def gave(self, firsts: Sequence[tuple[int, int]]) -> None:
        """Those of these numbers get their timestamps, each from its first on."""

    def gave_none(self, numbers: Sequence[int], status: int, problem: bytes) -> None:
        """Those of these numbers get none, but this status and document."""

    def close(self) -> None:
        """
        Take no more connections, give requests under way a second, end; writes not answered by then may
        have happened, and their clients are told so. Waits for it, with the interpreter lock released.
        """

@final
class SharedWriter:
    """
    The one writer of a table in shared memory, a file of ``size_bytes`` (16 KiB to 4 GiB) that never grows.

    The table begins empty and is seen by readers once it is published. What holds and why is in
    ``engine/src/shared``. A new writer at the same path replaces the whole table.

    Raises:
        BlockingIOError: Another process writes this table.
        OSError: The file can't be made, or the memory is not there.
        ValueError: The size is out of range.
    """

    def __new__(cls, path: str | PathLike[str], size_bytes: int) -> Self: ...
    def put(self, key: str, value: bytes, revision: int, timestamp: int) -> None:
        """
        Set ``key``; seen by readers on return.

        Raises:
            MemoryError: No room is left for it; nothing was changed.
            RuntimeError: This writer is closed. Also of all that follow.
            ValueError: The key is empty or has more than 1024 bytes.
        """

    def delete(self, key: str) -> bool:
        """Remove ``key``; tells whether it was there."""

    def leave_out(self, key: str) -> None:
        """Remove ``key`` for want of room: who does not find a key is told from now on to ask the store."""

    def publish(self, revision: int, as_of_ns: int | None = None) -> None:
        """
        Take the place of the table before, at once and as a whole.

        It holds all up to ``revision``, which was all there was at ``as_of_ns`` of this machine's monotonic
        clock, by default now.
        """

    def progress(self, revision: int, as_of_ns: int | None = None) -> None:
        """Say that all up to ``revision`` is in the table, as :meth:`publish`; without it, it grows old."""

    @property
    def epoch(self) -> int:
        """Which writer of this table this is, from 1."""

    def close(self) -> None:
        """Let another writer in. The table stays and grows old."""

    @staticmethod
    def remove(path: str | PathLike[str]) -> None:
        """Take away the table at ``path``, whose writer is closed; its readers learn that there is none."""

@final
class SharedValue:
    """
    A value, the revision that set it, and the stamp at which it came into memory: ``None`` if it did not.
    """

    def __new__(cls, value: bytes, revision: int, timestamp: int | None) -> Self: ...
    @property
    def value(self) -> bytes: ...
    @property
    def revision(self) -> int: ...
    @property
    def timestamp(self) -> int | None: ...

@final
class SharedReader:
    """
    Reads the table at ``path``, and those that take its place; for all threads of a process.

    Raises:
        FileNotFoundError: There is no table.
        PermissionError: It may not be read.
        RuntimeError: It has another layout, or is no table; the message says what was found. Later calls
            raise these, too, when the table was taken away or one of another layout took its place.
    """

    def __new__(cls, path: str | PathLike[str]) -> Self: ...
    def get(self, key: str) -> SharedValue | None:
        """
        The value of ``key``, or ``None`` where it has none; no system call.

        Raises:
            BlockingIOError: It is being written, or its writer died in the middle of it, or the table has no
                room for all there is and this key is not in it: ask the store.
            RuntimeError: Something other than the writer wrote to the table: ask the store.
        """

    def progress(self) -> tuple[int, int, int]:
        """
        The revision up to which all is there, for how many nanoseconds that need not be all, and its epoch.

        What is read afterwards is at least as new.
        """

    def reopen(self) -> None:
        """Look for a newer table at the path, as one does whose table is old; takes system calls."""

@final
class SharedCounter:
    """
    A whole number of 64 bits that processes of this machine count together, in the file ``path``.

    It is made, at 0, by who comes first. An addition is one step: whoever dies has added, or has not.

    Raises:
        OSError: The file can't be made or opened.
        RuntimeError: It is something else, or of another layout.
    """

    def __new__(cls, path: str | PathLike[str]) -> Self: ...
    def add(self, amount: int = 1) -> int:
        """
        Add ``amount``, which may be negative; the number after it.

        Raises:
            OverflowError: ``amount`` has more than 64 bits.
            ValueError: The sum has; nothing was added.
        """

    @property
    def value(self) -> int:
        """The number."""

@final
class SharedProducer:
    """
    The one writer of a ring in the file ``path``: the last ``slots`` messages, for any number of consumers.

    It goes on with the ring of a producer before it; one of other measures is replaced, and its messages
    are gone. It never waits for consumers. What holds and why is in ``engine/src/shared/ring.rs``.

    Args:
        slots: 1 to 2**24; rounded up to a power of two.
        message_bytes: The longest message; all slots together take at most 4 GiB, at once.

    Raises:
        BlockingIOError: Another process writes this ring.
        OSError: The file can't be made, or the memory is not there.
        ValueError: A measure is out of range.
    """

    def __new__(cls, path: str | PathLike[str], slots: int, message_bytes: int) -> Self: ...
    def push(self, message: bytes) -> int:
        """
        Write a message, over the oldest if all slots are taken; its number, from 0.

        Raises:
            RuntimeError: This producer is closed.
            ValueError: It is longer than the ring's messages may be; nothing was written.
        """

    def close(self) -> None:
        """Let another producer in. The ring stays."""

@final
class SharedConsumer:
    """
    Reads each message of the ring in the file ``path``, whatever other consumers do.

    Args:
        position: The number of the first message to take; ``None``: the next that is written.

    Raises:
        FileNotFoundError: There is no ring.
        PermissionError: It may not be read.
        RuntimeError: It is something else, or of another layout.
        ValueError: ``position`` lies beyond what was written: the ring is not the one it is of.
    """

    def __new__(cls, path: str | PathLike[str], position: int | None = None) -> Self: ...
    def take(self) -> tuple[bytes, int, int] | None:
        """
        The next message, its number, and how many before it were overwritten since the last one was taken.

        ``None`` if there is none yet; never waits.

        Raises:
            RuntimeError: Something else wrote to the ring, or one of another layout took its place.
        """

    @property
    def position(self) -> int:
        """The number of the message that comes next; a later consumer can go on there."""
