"""Names that others have chosen, as they may stand in a line of text."""

LONGEST_WORDS = 200  # characters


def harmless_name(text: str) -> str:
    """Shorten what somebody else calls himself; it does nothing to a terminal, nor adds a line."""
    return ''.join(char if char.isprintable() else '?' for char in text[:LONGEST_WORDS])
