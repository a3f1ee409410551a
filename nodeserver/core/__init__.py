"""Decisions only: no socket, file, thread, clock, random number or log."""
