"""A socket is in its group on the interfaces that there are, and on no other."""

import asyncio

from nodeserver.io import netif
from nodeserver.io.datagrams import DatagramSocket, SocketAddress
from nodeserver.io.multicast import Membership, group_interfaces, send_to_group


def test_a_socket_hears_its_group_as_long_as_it_follows_the_interface() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        got: asyncio.Queue[bytes] = asyncio.Queue()

        def received(sock: DatagramSocket, data: bytes, source: SocketAddress) -> None:
            got.put_nowait(data)

        hearing = DatagramSocket(loop, received)
        speaking = DatagramSocket(loop, received, ('127.0.0.1', 0))
        every = netif.interfaces('127.0.0.1')
        group = Membership(hearing)
        for data, interfaces in ((b'1', every), (b'2', []), (b'3', every)):
            group.follow(interfaces)
            assert send_to_group(speaking, data, hearing.port, every[0])
        speaking.send(b'end', ('127.0.0.1', hearing.port))
        heard = [await asyncio.wait_for(got.get(), 10) for _ in range(3)]
        assert heard == [b'1', b'3', b'end']
        hearing.close()
        speaking.close()

    asyncio.run(story())


def test_each_interface_is_chosen_once_for_each_family() -> None:
    rows = [
        ('lo', '127.0.0.1', '255.0.0.0'),
        ('lo', '::1', None),
        ('eth0', '10.0.0.1', '255.255.255.0'),
        ('eth0', '10.0.0.2', '255.255.255.0'),
        ('eth0', 'fd00::1', 'ffff:ffff:ffff:ffff::'),
        ('eth0', 'fe80::1%eth0', 'ffff:ffff:ffff:ffff::'),
    ]
    every = [netif._interface(*row) for row in rows]
    chosen = {
        family.name: [i.address for i in group_interfaces(every, family)]
        for family in {interface.family for interface in every}
    }
    assert chosen == {'AF_INET': ['127.0.0.1', '10.0.0.1'], 'AF_INET6': ['fd00::1']}


def test_an_interface_that_is_gone_takes_nothing() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        gone = netif._interface('gone0', '192.0.2.1', '255.255.255.0')
        gone6 = netif._interface('gone0', 'fe80::2%gone0', 'ffff:ffff:ffff:ffff::')
        for address, interface in (('', gone), ('::', gone6)):
            sock = DatagramSocket(loop, lambda *_: None, (address, 0))
            Membership(sock).follow([interface])
            assert not send_to_group(sock, b'x', 9, interface)
            sock.close()

    asyncio.run(story())
