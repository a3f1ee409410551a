"""Shells: each owns one core, one loop and the I/O, and decides nothing."""
