"""`%dispy doctor`: the lines of `dispy doctor`, below the cell that asks."""

import argparse
import asyncio
import json
import queue
import threading
from collections.abc import Sequence
from typing import Any

from dispy_nb import doctorcommand
from dispy_nb.doctor.examination import examine
from dispy_nb.doctor.facts import Order
from dispy_nb.doctor.findings import Finding, as_json, summary
from dispy_nb.doctor.machine import Credentials

_Group = tuple[str, Sequence[Finding]]


def doctor(shell: Any, given: argparse.Namespace) -> None:
    """Examine this machine and its nodes, and show each group of findings as it is done."""
    order, credentials = doctorcommand.order_of(given), doctorcommand.credentials_of(given)
    printer = doctorcommand.Printer()
    findings: list[Finding] = []
    for place, found in _Examined(order, credentials):
        findings += found
        if not given.json:
            printer(place, found)
    if given.json:
        print(json.dumps(as_json(findings, given.strict), indent=1))
    else:
        print(f'\n{summary(findings, given.strict)}')


class _Examined:
    """An examination on a loop of its own, as this thread's is the kernel's."""

    def __init__(self, order: Order, credentials: Credentials) -> None:
        self._order, self._credentials = order, credentials
        self._groups: queue.SimpleQueue[_Group | BaseException | None] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[object] | None = None
        self._thread = threading.Thread(target=self._run, name='dispy-doctor', daemon=True)

    def __iter__(self) -> Any:
        """Yield groups as they come; an interrupted cell ends the examination."""
        self._thread.start()
        try:
            while (group := self._groups.get()) is not None:
                if isinstance(group, BaseException):
                    raise group
                yield group
        finally:
            if self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._cancel)
            self._thread.join()
            self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._examine())
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - the edge of a thread: raised in the cell
            self._groups.put(error)
        finally:
            self._groups.put(None)

    async def _examine(self) -> None:
        self._task = asyncio.current_task()
        await examine(self._order, self._credentials, lambda *group: self._groups.put(group))

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
