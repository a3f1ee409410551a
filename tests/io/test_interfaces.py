"""Addresses of this machine: the system alone tells the same as psutil."""

import psutil
import pytest

from nodeserver.io import interfaces, sysinfo


def test_the_system_itself_tells_what_psutil_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = set(interfaces.addresses())
    assert ('lo', '127.0.0.1', '255.0.0.0') in told
    assert interfaces.boot_time() == psutil.boot_time()
    monkeypatch.setattr(interfaces, 'psutil', None)
    assert set(interfaces.addresses()) == told
    assert interfaces.boot_time() == 0.0


def test_without_psutil_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysinfo, 'psutil', None)
    assert sysinfo.measure(sysinfo.Path('/')) is None
