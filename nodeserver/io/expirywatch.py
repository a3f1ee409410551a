"""Warns ahead, once a day, that a certificate ends."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from nodeserver.io.certificate import Certificate

WARNING_INTERVAL: Final = 86400.0  # seconds


class ExpiryWatch:
    """Looks at a certificate now and once a day; `warn` gets the words, '' when it was renewed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        certificate: Certificate,
        warn: Callable[[str], object],
    ) -> None:
        self._loop, self._certificate, self._warn = loop, certificate, warn
        self._last_words = ''
        self._look()

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._loop.call_later(WARNING_INTERVAL, self._look)
        text = self._certificate.warning(time.time())
        if text or self._last_words:
            self._warn(text)
        self._last_words = text
