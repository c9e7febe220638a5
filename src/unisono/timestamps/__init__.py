"""Pure clocks: hybrid logical, Lamport, vector. Nothing here reads a file, a socket or a store."""
