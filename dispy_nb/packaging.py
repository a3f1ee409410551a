"""From what the user gives to what travels: a declared computation, and who we are in words."""

import getpass
import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dispy_nb.cells import with_cell
from dispy_nb.dependencies import Dependency, SourceFiles
from dispy_nb.depends import files_of, objects_of
from dispy_nb.nodes import NodeAllocate
from dispy_nb.options import ClusterOptions
from dispy_nb.project import Project, look_through
from nodeserver.core.errors import PicklingFailed, UsageError
from nodeserver.core.messages import DeclareComputation, NodeSpec
from nodeserver.io.netif import resolve
from nodeserver.io.sysinfo import python_version
from nodeserver.payload import dump_call, dump_package
from nodeserver.usercode import modules_by_value
from nodeserver.worker.program import Program


def project_of(options: ClusterOptions) -> Project:
    """Find what of the user's own project the computation and its companions reach."""
    companions = options.setup, options.cleanup, *objects_of(options.depends)
    return look_through([options.computation, *companions])


def own_files(options: ClusterOptions, project: Project) -> SourceFiles:
    """Find and digest the files that the whole cluster depends on, listed or reached by imports.

    Raises
    ------
    UsageError
        One of them is missing or cannot be sent; nothing has been sent then.
    """
    reached = [Dependency(file.path, str(file.source)) for file in project.files]
    return files_of('depends', options.depends, reached)


def declare(options: ClusterOptions, project: Project, manifest: bytes = b'') -> DeclareComputation:
    """Make the declaration of a new computation.

    Raises
    ------
    PicklingFailed
        The function or `setup_args` of a node refers to something that cannot travel.
    UsageError
        A host name in `nodes` has no address.
    """
    by_value = modules_by_value(options.computation)
    for place, allocation in enumerate(options.allocations):
        dump_setup_args(allocation, by_value)  # what cannot travel is told here
        try:
            node_files(allocation)
        except UsageError as error:
            raise UsageError(f'nodes[{place}]: {error}') from error
    return DeclareComputation(
        secrets.randbits(63) | 1,
        options.name or computation_name(options.computation),
        owner(),
        python_version(),
        _package(options, project),
        [node_spec(allocation, options.node_port or 0) for allocation in options.allocations],
        options.node_port or 0,
        options.isolation,
        options.reentrant,
        options.dest_path or '',
        bool(options.cleanup),
        options.pulse,
        float(options.ping_interval or 0),
        options.resources(),
        manifest,
        token=secrets.token_bytes(16),
        exclusive=options.exclusive,
    )


def _package(options: ClusterOptions, project: Project) -> bytes:
    computation = options.computation
    if isinstance(computation, str):
        path = Path(computation)
        computation = Program(path.name, path.read_bytes())
    try:
        return dump_package(
            computation,
            setup=options.setup,
            cleanup=options.cleanup if callable(options.cleanup) else None,
            depends=objects_of(options.depends),
            requires=project.requires,
            by_value=modules_of(options, project),
        )
    except PicklingFailed as error:
        raise PicklingFailed(with_cell(str(error))) from error


def modules_of(options: ClusterOptions, project: Project) -> frozenset[str]:
    """Name the modules of the user's own that travel by value.

    What `depends` lists of a module that is sent as a file is found there, as by those who import
    it: there would else be two classes of one name.
    """
    own = (options.computation, options.setup, options.cleanup)
    listed = {n for part in objects_of(options.depends) for n in modules_by_value(part)}
    names = {name for part in own for name in modules_by_value(part)}
    return frozenset(names | (listed - project.modules))


def computation_name(computation: Callable[..., Any] | str) -> str:
    """Return the name by which people know a function or program."""
    if isinstance(computation, str):
        return Path(computation).name
    name = getattr(computation, '__name__', '') or type(computation).__name__
    return 'lambda' if name == '<lambda>' else name


def owner() -> str:
    """Say who this program is, for others who wait for its nodes."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else 'an interactive session'
    return f'{_user()} at {socket.gethostname()}, process {os.getpid()} ({program})'


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no entry for this uid, as in some containers
        return f'uid {os.getuid()}' if hasattr(os, 'getuid') else 'somebody'


def node_spec(allocation: NodeAllocate, node_port: int) -> NodeSpec:
    """What the scheduler is told of an element of `nodes`.

    Raises
    ------
    UsageError
        Its host name has no address.
    """
    host = allocation.host
    pattern = host if '*' in host else resolve(host)[0]
    asks = allocation.decides_itself
    return NodeSpec(pattern, allocation.port_or(node_port), allocation.cpus, asks)


def node_files(allocation: NodeAllocate) -> SourceFiles:
    """Find and digest the files that are for the nodes of this allocation alone.

    Raises
    ------
    UsageError
        One is missing or cannot be sent, or something is no file.
    """
    if objects_of(allocation.depends):
        raise UsageError(f'depends may hold files and modules only: {allocation.depends!r}')
    return files_of('depends', allocation.depends)


def dump_setup_args(allocation: NodeAllocate, by_value: Iterable[str]) -> bytes:
    """Pickle the arguments that `setup` gets on a node, as those of a job; b'' if there are none.

    Raises
    ------
    PicklingFailed
        One of them cannot travel; it is named.
    UsageError
        They are not in a tuple.
    """
    allocation.check_extras()
    if not allocation.setup_args:
        return b''
    try:
        return dump_call(allocation.setup_args, {}, by_value)
    except PicklingFailed as error:
        raise PicklingFailed(f'setup_args: {error}') from error


def check_program_arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A program takes strings, in order (C05)."""
    if kwargs:
        raise UsageError(f'a program takes no keyword arguments: {sorted(kwargs)}')
    for position, value in enumerate(args, 1):
        if not isinstance(value, str):
            raise UsageError(
                f'argument {position} of a program must be a string, not {value!r} '
                f'({type(value).__name__})'
            )
