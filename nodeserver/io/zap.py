"""Who may connect: the answerer of ZeroMQ's authentication requests, in the loop of the link.

Without it every client that learnt the server's public key would get in.
"""

import zmq
from zmq.utils import z85

from nodeserver.io.linkoptions import Surroundings
from nodeserver.io.zmqsocket import WatchedSocket
from nodeserver.wire.linkkeys import LinkKeys

_ADDRESS = 'inproc://zeromq.zap.01'


class Doorkeeper:
    """Admits the client key of our secret and no other; ipc sockets do not ask it."""

    def __init__(self, around: Surroundings, keys: LinkKeys) -> None:
        self._admitted = keys.client_public
        self._sock = around.context.socket(zmq.REP)
        self._sock.bind(_ADDRESS)
        self._watched = WatchedSocket(around.loop, self._sock, self._answer)

    def _answer(self) -> None:
        request = self._sock.recv_multipart(zmq.NOBLOCK)
        version, number, mechanism, credentials = request[0], request[1], request[5], request[6:]
        is_known = mechanism == b'CURVE' and z85.encode(credentials[0]) == self._admitted
        verdict = (b'200', b'OK', b'peer') if is_known else (b'400', b'another key', b'')
        self._watched.send([version, number, *verdict, b''])

    def close(self) -> None:
        """Answer nobody any more."""
        self._watched.close(0)
