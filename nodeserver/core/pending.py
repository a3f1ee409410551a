"""What users wait for beside their jobs: answers of the scheduler, and files under way."""

from nodeserver.core.effects import Effect, HearOfFiles, SettleRequest
from nodeserver.core.filemessages import (
    OWN_FILES,
    FileMessage,
    FilesFailed,
    FilesPlaced,
    PlaceFiles,
)
from nodeserver.core.fleetmessages import AddNodes, RequestAnswered
from nodeserver.core.messages import Message, NodeSpec


class Asked:
    """The requests and the files of one cluster, which end if the scheduler is gone."""

    def __init__(self, computation: int, is_elsewhere: bool) -> None:
        self._computation = computation
        self._is_elsewhere = is_elsewhere  # else it cannot be gone
        self._requests: dict[int, Message] = {}
        self._nodes: dict[str, None] = {}  # with which files have been spoken of
        self.added: list[NodeSpec] = []  # elements of `nodes` that came later, the latest first

    def made(self, message: Message) -> None:
        """The scheduler is asked."""
        if self._is_elsewhere:
            self._requests[_number(message)] = message

    def answered(self, message: RequestAnswered) -> None:
        """It has answered; elements of `nodes` may be new."""
        request = self._requests.pop(message.request, None)
        if isinstance(request, AddNodes) and message.value >= 0:
            self.added[:0] = request.specs

    def refusal(self, message: Message, reason: str) -> Effect:
        """It cannot be asked now; more nodes are remembered, and declared to the next one."""
        value = -1
        if isinstance(message, AddNodes):
            self.added[:0] = message.specs
            value, reason = 0, ''
        return SettleRequest(RequestAnswered(self._computation, _number(message), value, reason))

    def of_files(self, message: FileMessage) -> None:
        """A node is spoken with of files, or all that was under way with it has ended."""
        if isinstance(message, FilesFailed) and message.transfer == OWN_FILES:
            self._nodes.pop(message.node, None)
        elif self._is_elsewhere:
            self._nodes[message.node] = None

    def file_refusal(self, message: FileMessage, reason: str) -> list[Effect]:
        """The node cannot be told now: who waits for a file to be there is."""
        if not isinstance(message, PlaceFiles):
            return []
        placed = FilesPlaced(self._computation, message.node, message.transfer, reason)
        return [HearOfFiles(placed)]

    def give_up(self, reason: str) -> list[Effect]:
        """The scheduler is gone, and with it the answers, and all that was under way."""
        effects: list[Effect] = [
            self.refusal(request, reason) for request in self._requests.values()
        ]
        for node in self._nodes:
            failed = FilesFailed(self._computation, node, OWN_FILES, reason)
            effects.append(HearOfFiles(failed))
        self._requests.clear()
        self._nodes.clear()
        return effects


def _number(message: Message) -> int:
    return int(getattr(message, 'request', 0))
