"""Messages to bytes and back, without sockets."""
