"""What the machine is called, and where it may listen."""

import socket
from pathlib import Path

import pytest

from nodeserver.core.errors import KeyFileError, UsageError
from nodeserver.io import netif


def test_loopback_has_a_broadcast_address() -> None:
    (interface,) = netif.interfaces('127.0.0.1')
    assert (interface.address, interface.broadcast) == ('127.0.0.1', '127.255.255.255')
    assert interface.is_loopback


def test_unlisted_loopback_address_is_on_the_loopback_interface() -> None:
    (interface,) = netif.interfaces('127.0.0.2')
    assert (interface.address, interface.broadcast) == ('127.0.0.2', '127.255.255.255')


def test_each_network_is_broadcast_to_once() -> None:
    every = netif.interfaces(['127.0.0.1', '127.0.0.2', '::1'])
    assert [interface.address for interface in netif.broadcast_interfaces(every)] == ['127.0.0.1']


def test_own_addresses_are_told_from_others() -> None:
    assert all(netif.is_local_address(interface.address) for interface in netif.interfaces())
    assert netif.is_local_address('127.0.0.77')
    for foreign in ('203.0.113.7', '2001:db8::1', '0.0.0.0', '224.0.0.1', 'no address'):
        assert not netif.is_local_address(foreign)


def test_foreign_address_is_refused_naming_ext_ip_addr() -> None:
    netif.check_bindable('127.0.0.5')
    netif.check_bindable('0.0.0.0')
    with pytest.raises(UsageError, match=r'203\.0\.113\.7.*--ext_ip_addr'):
        netif.check_bindable('203.0.113.7')


def test_a_name_of_this_machine_is_all_its_addresses_here() -> None:
    assert '127.0.0.1' in netif.own_addresses('localhost')
    assert netif.own_addresses('127.0.0.9') == ['127.0.0.9']
    assert netif.own_addresses('203.0.113.7') == ['203.0.113.7']  # to be refused by who binds it
    assert netif.resolve('::ffff:127.0.0.9') == ['127.0.0.9']


def test_a_link_local_address_is_on_the_network_of_its_own_interface_only() -> None:
    here = netif._interface('eth0', 'fe80::1%eth0', 'ffff:ffff:ffff:ffff::')
    assert here.reaches('fe80::2%eth0')
    assert not here.reaches('fe80::2%eth1')


def test_only_addresses_that_are_there_are_present() -> None:
    present = netif.present_interfaces(['127.0.0.1', '203.0.113.7'])
    assert [interface.address for interface in present or []] == ['127.0.0.1']


def test_unknown_host_is_refused_by_name() -> None:
    assert '127.0.0.1' in netif.resolve('localhost')
    assert netif.resolve('127.0.0.9') == ['127.0.0.9']
    with pytest.raises(UsageError, match='no such host'):
        netif.resolve('no such host')


def test_fingerprint_is_the_same_each_time() -> None:
    assert netif.host_fingerprint() == netif.host_fingerprint()
    assert len(netif.host_fingerprint()) == 16


def test_runtime_directory_is_private_and_short() -> None:
    path = netif.runtime_directory()
    assert path == netif.runtime_directory()
    assert path.stat().st_mode & 0o777 == 0o700
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path / ('n' * 48)))
    (path / ('n' * 48)).unlink()


def test_runtime_directory_open_to_others_is_refused() -> None:
    path = netif.runtime_directory()
    path.chmod(0o755)
    with pytest.raises(KeyFileError, match=f'chmod 700 {path}'):
        netif.runtime_directory()


def test_link_in_place_of_the_runtime_directory_is_refused(tmp_path: Path) -> None:
    path = netif.runtime_directory()
    path.rmdir()
    path.symlink_to(tmp_path)
    with pytest.raises(KeyFileError, match='remove it'):
        netif.runtime_directory()
    path.unlink()
