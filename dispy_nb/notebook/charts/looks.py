"""How lines and bars look, in live charts and in pictures alike.

The colours are those of Okabe and Ito, which people tell apart however they see colours; dashes,
markers and hatches say the same without them.
"""

BLUE, VERMILION, GREEN = '#0072B2', '#D55E00', '#009E73'
PURPLE, ORANGE, SKY, GREY = '#CC79A7', '#E69F00', '#56B4E9', '#8C8C8C'

COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
DASHES: tuple[tuple[int, ...], ...] = ((), (7, 3), (2, 2), (7, 3, 2, 3), (12, 4))  # drawn, left out
MARKERS = ('circle', 'square', 'triangle', 'diamond', 'inverted_triangle', 'plus', 'x')
OTHERS_COLOR, OTHERS_DASH = GREY, (3, 5)

STATUS_COLORS = {'finished': GREEN, 'failed': VERMILION, 'cancelled': ORANGE, 'running': SKY}
HATCHES = {'finished': ' ', 'failed': 'x', 'cancelled': '/', 'running': '.'}


def color_of(place: int) -> str:
    """Colour of the so-manieth line."""
    return COLORS[place % len(COLORS)]


def dash_of(place: int) -> tuple[int, ...]:
    """Dashes of the so-manieth line: neighbours, and lines of one colour, differ."""
    return DASHES[place % len(DASHES)]


def marker_of(place: int) -> str:
    """Marker of the so-manieth line."""
    return MARKERS[place % len(MARKERS)]
