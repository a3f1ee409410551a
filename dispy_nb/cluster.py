"""Clusters: one function, the nodes that run it, and the jobs submitted to it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from dispy_nb import closing, runtime
from dispy_nb.dependencies import NO_FILES, SourceFiles
from dispy_nb.depends import NO_DEPENDS, job_depends
from dispy_nb.files import ClusterFiles
from dispy_nb.job import DispyJob
from dispy_nb.log import set_level
from dispy_nb.nodes import DispyNode, pin_names
from dispy_nb.olderverbs import OlderVerbs
from dispy_nb.options import ClusterOptions
from dispy_nb.othernames import takes_other_names
from dispy_nb.packaging import check_program_arguments
from dispy_nb.prepared import Prepared, prepare
from dispy_nb.recovery.journal import Journal
from dispy_nb.recovery.planning import plan_of
from dispy_nb.recovery.resumption import Resumption
from dispy_nb.rerun import MadeOnce, made_at, place_of, remember
from dispy_nb.runtime import Runtime
from dispy_nb.shareddata import DataBook
from dispy_nb.shell import ClusterShell
from dispy_nb.snapshot import Snapshot, take_snapshot
from nodeserver.core.errors import UsageError
from nodeserver.core.events import CancelAsked, Event
from nodeserver.core.fleetmessages import WatchFigures
from nodeserver.core.messages import ORDINARY, JobOptions, Message
from nodeserver.io.udp import CLIENT_PORT, NODE_PORT
from nodeserver.payload import dump_call, dump_job

WATCH_INTERVAL = 5.0  # seconds between words that somebody still looks at the nodes
_NO_DATA: list[int] = []


class Cluster(OlderVerbs, metaclass=MadeOnce):
    """What every cluster does, wherever its scheduler is."""

    def _make(self, options: ClusterOptions) -> None:
        """Check the options and open the cluster, or stand for one that was made before."""
        options.check()
        set_level(options.loglevel)
        prepared = prepare(options)
        place = place_of(self, prepared.declared.name)
        arguments = prepared.arguments() if place is not None else {}
        before = made_at(place)
        if before is not None and before.thing._is_the_same(options, before.arguments, arguments):
            self._stands_for = before.thing
            return
        self._open(prepared)
        remember(place, self, arguments)

    @classmethod
    def _resumed(cls, prepared: Prepared, resumption: Resumption) -> Self:
        """Make the cluster of a program that was killed once more."""
        cluster = cls.__new__(cls)
        cluster._open(prepared, resumption)
        return cluster

    @classmethod
    def _from_options(cls, options: ClusterOptions) -> Self:
        """Make a cluster with options that were checked before."""
        cluster = cls.__new__(cls)
        cluster._open(prepare(options))
        return cluster

    def _open(self, prepared: Prepared, resumption: Resumption | None = None) -> None:
        options, declared, own = prepared.options, prepared.declared, prepared.files
        self._options = options
        self._computation = declared.computation
        self.attached_jobs: list[DispyJob] = []  # of a program that has ended (V15)
        self._travels = prepared.travels
        self.name = declared.name
        self._made_at = time.time()
        self._watched_at = float('-inf')
        self._next = 0
        self._submitting = threading.Lock()
        self._is_closed = False
        self._is_foreign = False  # this process is a fork of the one that made it
        self._data = DataBook(self.name, self._tell_core, self._on_loop)
        self._files = ClusterFiles(self.name, own, self._tell_core)
        self._shell = ClusterShell(self, self._data, self._files, options, runtime.CALLBACKS)
        plan = plan_of(prepared) if resumption is None else resumption.plan
        self._journal = Journal(plan, self._shell.jobs, self._files.of_jobs, self._later)
        self._runtime = self._acquire(options, resumption is not None and resumption.alone)
        try:
            if plan.path is not None:
                self._runtime.call(self._journal.file.open)
            before = resumption.take_up(self) if resumption is not None else ()
            self._seat = self._runtime.attach(declared, self._shell, self._journal, before)
        except BaseException:
            self._runtime.call(self._journal.leave if plan.resumes else self._journal.file.remove)
            runtime.release(self._runtime)
            raise
        closing.register(self)

    def _acquire(self, options: Any, alone: bool) -> Runtime:
        """Return what the cluster runs on."""
        return runtime.acquire(options, alone)

    # jobs

    def submit(self, /, *args: Any, **kwargs: Any) -> DispyJob:
        """Submit a job: a call of the function with these arguments, on any node.

        `dispy_job_depends=[...]` is for this job alone, and no argument of the function (F12).

        Returns
        -------
        DispyJob
            At once; call it to wait for the result (C01).

        Raises
        ------
        PicklingFailed
            An argument cannot travel; it is named, and other jobs are not disturbed (C04).
        ClusterClosed
            The cluster was closed.
        """
        return self._submit('', args, kwargs)

    def submit_node(self, /, node: DispyNode | str, *args: Any, **kwargs: Any) -> DispyJob:
        """Submit a job for one node only: a `DispyNode`, an address or a host name (C08).

        The job waits until that node is there and has a cpu free.

        Raises
        ------
        UsageError
            `node` is neither, or a `DispyNode` that the cluster has lost or closed.
        """
        return self._submit(self._pin(node), args, kwargs)

    def _pin(self, node: DispyNode | str) -> str:
        if isinstance(node, DispyNode) and node.closed:
            raise UsageError(f'{node!r} was lost or closed: give one that is there, or an address')
        return pin_names(node, self._shell.nodes.values())

    def _submit(
        self,
        node: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions = ORDINARY,
        id: Any = ...,  # counted
    ) -> DispyJob:
        if self._is_closed:
            self._check_open()
        depends, files = NO_DEPENDS
        if kwargs:
            depends, files = job_depends(kwargs, self._options.computation)
        if isinstance(self._options.computation, str):
            check_program_arguments(args, kwargs)
        named: list[int] = []  # ids of large arguments
        history = self._shell.history
        shown = history.shown(args, kwargs) if history.keeps_jobs else None
        try:
            if depends:
                payload = dump_job(args, kwargs, depends, self._travels, self._data.divert, named)
            else:
                payload = dump_call(args, kwargs, self._travels, self._data.divert, named)
        except BaseException:
            self._data.give_up(0, named)
            raise
        return self._submit_payload(node, payload, options, named or _NO_DATA, files, id, shown)

    def _submit_payload(
        self,
        node: str,
        payload: bytes,
        options: JobOptions = ORDINARY,
        named: list[int] = _NO_DATA,
        files: SourceFiles = NO_FILES,
        id: Any = ...,
        shown: Any = None,  # of its arguments
    ) -> DispyJob:
        number = 0
        try:
            with self._submitting:
                if self._is_closed:
                    self._check_open()
                self._next = number = self._next + 1
                job = DispyJob(self, number, len(payload))
                if id is not ...:
                    job.id = id  # now: adding it tells of it
                job._arguments = shown
                self._shell.add(job, number)
                if named:
                    self._data.assign(number, named)
                if files is not NO_FILES:
                    self._files.assign(number, files)
                manifest = files.manifest
                entry = (self._seat, self._shell, node, number, payload, options, named, manifest)
                self._runtime.submit(entry)
        except BaseException:  # also Ctrl-C: a job that nobody was given is none
            self._shell.discard(number)
            self._data.give_up(number, named)
            self._files.withdraw(number)
            raise
        return job

    def cancel(self, job: DispyJob) -> int:
        """Take a job back: one that waits never runs, a running one is ended (C11, C12).

        Returns
        -------
        int
            0 if it was still pending, -1 if it had ended.
        """
        self._check_foreign()
        self._check_own(job)
        if job._number not in self._shell.jobs:
            return -1
        self._runtime.post(self._seat, CancelAsked([job._number]))
        return 0

    # looking

    def uses_only(self, nodes: set[tuple[str, int]]) -> bool:
        """Whether all nodes that the cluster asks for are among these addresses and ports."""
        return all((a.host, a.port) in nodes for a in self._shell.allocations)

    def snapshot(self, jobs: int = 0) -> Snapshot:
        """Take a picture of the cluster's figures, and of its first pending jobs, for displays."""
        return take_snapshot(self.name, self._shell, self._made_at, self._is_closed, jobs)

    def __repr__(self) -> str:
        counts = f'{self._shell.submitted} jobs, {len(self._shell.jobs)} pending'
        return f'<{type(self).__name__} {self.name}: {counts}>'

    def _watch_nodes(self) -> None:
        """Somebody looks at the nodes: have their figures fresh for some seconds from now on."""
        now = time.monotonic()
        if now - self._watched_at >= WATCH_INTERVAL:
            self._watched_at = now
            self.say(WatchFigures)

    def _check_own(self, job: object) -> None:
        if not isinstance(job, DispyJob) or job._cluster is not self:
            raise UsageError(f'{job!r} is not a job of cluster {self.name}')

    # for the shell and the data

    def _tell_core(self, event: Event) -> None:
        self._runtime.post(self._seat, event)

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._runtime.later(seconds, function)

    def _id_given(self, job: DispyJob) -> None:
        """A job is called otherwise from now on: so it is after a recovery."""
        if not self._is_foreign:
            self._journal.note_id(job._number, job._id)

    def _on_loop(self, function: Callable[[], None]) -> None:
        self._runtime.soon(function)

    def say(self, message: Callable[[int], Message]) -> None:
        """Say something to the scheduler about this cluster's computation."""
        if not self._is_closed:
            self._runtime.send(self._seat, message(self._computation))


class JobCluster(Cluster):
    """Run a function on the nodes of a network (section A).

    The cluster finds nodes that run `dispynode`, sends them the function, and schedules the
    jobs submitted to it.  A `with` block closes it; so does the end of the program.  A cell of a
    notebook that is run again gets the cluster of before, if all arguments are the same; else that
    is closed, with its pending jobs cancelled, and another one is made (V16).

    Parameters
    ----------
    computation : callable or str
        The function to run; it travels by value with the globals it refers to.  Or the path of
        an executable file, which travels too; its arguments are strings and its result is the
        exit status.
    nodes : list, default ['*']
        Which nodes to use: host names, IP addresses, patterns such as ``'192.168.3.*'``,
        ``(host, port)`` pairs, or `NodeAllocate` objects.  ``'*'`` looks on the local network.
    callback : callable, optional
        Called with a job each time it has sent a provisional result, and when it has ended.
    cluster_status : callable, optional
        Called as ``cluster_status(status, node, job)`` for each change of a job or node.
    ip_addr : str or list of str, optional
        Own addresses to use; every interface by default.
    port, node_port : int, optional
        UDP port on which nodes' announcements are heard (51347; None or 0: any free one), and
        the port at which nodes are asked (51348).
    recover_file : str, optional
        Where to write what `recover_jobs` needs if this program is killed (I01); by default a file
        ``_dispy_YYYYMMDDHHMMSS`` in the current directory (in a kernel, among this user's own).  It
        is made with the first job, and removed when the cluster is closed.
    dest_path : str, optional
        Directory below the nodes' own one in which jobs run; by default one of its own.
    depends : list, optional
        Functions, classes (of an instance, its class), modules, and paths of files and
        directories that jobs find on the nodes.
    loglevel : int
        Least level of log messages of this package, such as ``dispy_nb.logger.DEBUG``.
    setup : callable, optional
        Runs once on each node before any job, and returns 0; jobs share what it makes global.
    cleanup : bool or callable
        Whether the directory is removed from the nodes when the cluster is closed; or a function
        to run there before that.
    pulse_interval : float, optional
        Seconds between signs of life, 1 to 600 (5 by default); a node is lost after 5 of them.
    ping_interval : float, optional
        Look again for nodes every so many seconds, also when there are some.
    reentrant : bool
        Whether jobs of a lost node are run again on others; else they end as `Cancelled`.
    secret : str
        What nodes must know; by default this user's own key.
    isolation : {'job', 'worker'}
        A process for each job, or one for each cpu that runs job after job (D5).
    insecure : bool
        Neither encrypt nor authenticate.
    name : str, optional
        What to call the cluster; the function's name by default.
    progress : bool, optional
        Show a line of progress while waiting; by default only on a terminal.
    cpus, memory, gpus : int, int or str, int
        What each job has for itself of its node: processors, bytes (or text such as ``'4g'``)
        and gpus (Z12).  A job that takes more memory than that is killed.
    ipv4_udp_multicast : bool
        Look for nodes by IPv4 multicast instead of broadcast; they need no option for that.

    Raises
    ------
    UsageError
        An argument has a wrong value.
    DatabaseError
        `recover_file` cannot be used: the text says why.
    CertificateError
        `certfile` or `keyfile` cannot be used: the text says which, why, and what to do.
    PicklingFailed
        The function refers to something that cannot travel.
    """

    @takes_other_names
    def __init__(
        self,
        computation: Callable[..., Any] | str,
        nodes: Sequence[Any] = ['*'],
        depends: Sequence[Any] = [],
        callback: Callable[..., Any] | None = None,
        cluster_status: Callable[..., Any] | None = None,
        ip_addr: str | list[str] | None = None,
        ext_ip_addr: str | list[str] | None = None,
        port: int | None = CLIENT_PORT,
        node_port: int | None = NODE_PORT,
        recover_file: str | None = None,
        dest_path: str | None = None,
        loglevel: int = logging.WARNING,
        setup: Callable[..., Any] | None = None,
        cleanup: bool | Callable[..., Any] = True,
        pulse_interval: float | None = None,
        ping_interval: float | None = None,
        reentrant: bool = False,
        secret: str = '',
        keyfile: str | None = None,
        certfile: str | None = None,
        *,
        isolation: str = 'job',
        insecure: bool = False,
        name: str | None = None,
        progress: bool | None = None,
        cpus: int = 1,
        memory: int | str | None = None,
        gpus: int = 0,
        ipv4_udp_multicast: bool = False,
    ) -> None:
        given = dict(locals())  # first of all: exactly the parameters
        del given['self']
        self._make(ClusterOptions(**given))
