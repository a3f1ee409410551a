"""The names that every job finds without importing them, in `builtins` (D6).

A name of the user's own goes first: what is in `builtins` is looked for last.
"""

import builtins
import os
import sys
import time

from nodeserver.payload import dump_result
from nodeserver.wire.lane import PROVISIONAL, TemplateSettings
from nodeserver.worker.joblog import new_logger
from nodeserver.worker.lanefile import LaneFile


def install(settings: TemplateSettings, lane: LaneFile) -> None:
    """Make the names known, in the template: workers inherit them."""

    def dispy_provisional_result(result: object, relay: bool = False, timeout: float = 10) -> int:
        """Send an intermediate result to the client; it is on its way when this returns 0.

        `relay` and `timeout` are accepted for programs written for dispy and have no effect: the
        result goes to the node, which delivers it however long that takes.
        """
        lane.report_while_running(PROVISIONAL, dump_result(result))
        return 0

    vars(builtins).update(
        dispy_provisional_result=dispy_provisional_result,
        dispy_node_name=settings.node_name,
        dispy_node_ip_addr=settings.node_address,
        dispy_job_path=settings.directory,
        dispynode_logger=new_logger(),
        # modules that programs written for dispy use without importing them
        os=os,
        sys=sys,
        time=time,
    )
