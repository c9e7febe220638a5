"""What happens per request or per sample, in Rust (``engine/``)."""

__version__: str

def run_gateway(control_socket: str, table_path: str) -> None:
    """
    Runs the gateway in this thread, with the interpreter lock released.

    Returns after SIGTERM or SIGINT, once what is in flight has ended, 10 s at most. The signals are the
    engine's from then on, so this is for a process that does nothing else.

    Args:
        control_socket: Path of the Unix socket at which the node speaks to the gateway; at most 103 bytes.
        table_path: File in which the last routing table is kept, and from which it is read at the start.

    Raises:
        OSError: The control socket cannot be made, or another gateway runs there.
    """
