"""The outside world: sockets, processes, files, keys."""
