"""The reference has every name that a program can use, with the defaults that it has."""

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dispy_nb as dispy
from dispy_nb import (
    commands,
    dependencies,
    joboptions,
    liveoutput,
    local,
    nodes,
    options,
    project,
    shareddata,
)
from dispy_nb.history import Failure
from dispy_nb.job import Finish
from dispy_nb.joblib_backend import DispyBackend
from dispy_nb.snapshot import JobSnapshot, NodeSnapshot, ProvisionalSnapshot, Snapshot
from nodeserver.cli import (
    configuration,
    console,
    dispynetrelay,
    dispynode,
    dispyscheduler,
    schedulercommands,
)
from nodeserver.core import computation, departure, discovery, outputpace, relay
from nodeserver.io import forwarding, health, keys, limits, memfile, privatefiles, pump, templateend
from nodeserver.services import sharedscheduler
from nodeserver.wire import manifest, packed
from nodeserver.worker import helpers
from tests.support import pages

PAGE = pages.prose(pages.ROOT / 'docs' / 'reference.md')
RELAY_PAGE = pages.prose(pages.ROOT / 'docs' / 'dispynetrelay.md')
SCHEDULER_PAGE = pages.prose(pages.ROOT / 'docs' / 'dispyscheduler.md')
NODE_PAGE = pages.prose(pages.ROOT / 'docs' / 'dispynode.md')
CLASSES = [
    each
    for each in map(vars(dispy).get, dispy.__all__)
    if inspect.isclass(each) and not issubclass(each, Exception)
]
INNER = pages.spans(pages.section(PAGE, 'Names that are not for programs'))
VARIABLE = re.compile(r'(DISPY|XDG|CUDA|HIP|OMP|OPENBLAS|MKL|NUMEXPR|PYTHON|MPL)[A-Z_]*[A-Z]')


def missing_of(cls: type, text: str) -> list[str]:
    """List the members of a class that a text has not, as it should write them."""
    there = pages.spans(text)
    wanted = []
    for name, member in pages.members(cls).items():
        is_function = inspect.isfunction(member)
        wanted += [] if name in INNER else [pages.written(name, member) if is_function else name]
    return [each for each in wanted if each not in there]


@pytest.mark.parametrize('cls', CLASSES, ids=lambda cls: str(cls.__name__))
def test_every_public_member_is_there_with_its_parameters_and_defaults(cls: type) -> None:
    text = pages.section(PAGE, cls.__name__)
    if cls is dispy.SharedJobCluster:  # it has all of a JobCluster's, and says so
        text += pages.section(PAGE, 'JobCluster')
    assert missing_of(cls, text) == []


def test_what_methods_return_is_there_too() -> None:
    assert missing_of(Finish, pages.section(PAGE, 'DispyJob')) == []
    for cls in (Snapshot, NodeSnapshot, JobSnapshot, ProvisionalSnapshot, Failure):
        assert missing_of(cls, pages.section(PAGE, 'Snapshot')) == []


@pytest.mark.parametrize('cls', [dispy.NodeAllocate, dispy.LocalNodes, dispy.Executor])
def test_what_programs_make_is_there_with_its_parameters(cls: type) -> None:
    text = pages.section(PAGE, cls.__name__)
    assert pages.written(cls.__name__, cls, bound=False) in pages.spans(text)


@pytest.mark.parametrize(
    ('title', 'function'),
    [
        ('JobCluster', dispy.JobCluster),
        ('SharedJobCluster', dispy.SharedJobCluster),
        ('NodeAllocate', dispy.NodeAllocate),
        ('LocalNodes', dispy.LocalNodes),
    ],
)
def test_tables_of_parameters_have_all_in_order_with_their_defaults(
    title: str, function: Any
) -> None:
    rows = list(pages.rows(pages.section(PAGE, title)))
    parameters = inspect.signature(function).parameters.values()
    shown = rows[1 : len(parameters) + 1]
    wanted = [[f'`{each.name}`', shown_default(each)] for each in parameters]
    assert [row[:2] for row in shown] == wanted
    assert all(len(row) == 4 for row in shown)


def shown_default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ''
    return '`logger.WARNING`' if parameter.name == 'loglevel' else f'`{parameter.default!r}`'


def test_the_options_of_joblib_are_there() -> None:
    text = pages.section(PAGE, 'joblib')
    for parameter in inspect.signature(DispyBackend).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            assert f'`{parameter.name}`' in text
            assert f'`{parameter.default!r}`' in text


def test_every_name_of_the_module_is_there() -> None:
    names = {span.partition('(')[0] for span in pages.spans(PAGE)}
    assert set(dispy.__all__) - names == set()
    for name in ('as_completed', 'start_nodes', 'register_joblib', 'recover_jobs'):
        assert pages.written(name, getattr(dispy, name), bound=False) in pages.spans(PAGE)


def test_config_and_the_numbers_of_statuses_are_there() -> None:
    text = pages.section(PAGE, 'Functions, and other names of the module')
    for name, value in vars(dispy.config).items():
        if isinstance(value, int) and not name.startswith('_') and not name.isupper():
            assert f'`{name}`' in text
            assert f'`{value}`' in text
    numbers = {row[0]: row[1] for row in pages.rows(pages.section(PAGE, 'DispyJob'))}
    for name, value in vars(dispy.DispyJob).items():
        if isinstance(value, int):
            assert numbers[f'`{name}`'] == str(int(value))


def test_every_exception_is_there_with_its_own_attributes() -> None:
    _, *rows = pages.rows(pages.section(PAGE, 'Exceptions'))
    named = {row[0].split('`')[1]: row for row in rows}
    errors = [each for each in map(vars(dispy).get, dispy.__all__) if inspect.isclass(each)]
    errors = [each for each in errors if issubclass(each, Exception)]
    assert set(named) == {each.__name__ for each in errors} - {'DispyError'}
    for cls in set(errors) - {dispy.DispyError}:
        first, bases, _ = named[cls.__name__]
        wanted = [base.__name__ for base in cls.__bases__ if base is not dispy.DispyError]
        assert [base for base in wanted if f'`{base}`' not in bases] == []
        assert pages.spans(first) - {cls.__name__} == set(pages.members(cls))


def test_every_name_that_jobs_find_is_there() -> None:
    there = pages.spans(pages.section(PAGE, 'In jobs'))
    tree = ast.parse(inspect.getsource(helpers.install))
    functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == 'vars(builtins).update'
    )
    for keyword in call.keywords:
        name = str(keyword.arg)
        function = functions.get(name)
        if function is not None:
            for argument in function.args.args:
                argument.annotation = None
            name = f'{name}({ast.unparse(function.args)})'
        assert name in there


# programs


def options_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """List a program's options, and those of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from options_of(command)
        elif action.option_strings:
            yield action


@pytest.mark.parametrize(
    ('parser', 'text'),
    [
        (dispynode.parser(), pages.section(NODE_PAGE, 'Options')),
        (dispynetrelay.parser(), pages.section(RELAY_PAGE, 'Options')),
        (dispyscheduler.parser(), pages.section(SCHEDULER_PAGE, 'Options')),
        (commands.parser(), pages.section(PAGE, 'Programs')),
    ],
    ids=['dispynode', 'dispynetrelay', 'dispyscheduler', 'dispy'],
)
def test_every_option_is_there_with_its_default(parser: argparse.ArgumentParser, text: str) -> None:
    rows = [row for row in pages.rows(text) if len(row) == 3]
    for action in options_of(parser):
        for name in action.option_strings:
            found = [row for row in rows if re.search(rf'`{name}[ `]', row[0] + row[1])]
            assert found, f'{name} is in no table'
        default = action.default
        is_said = argparse.SUPPRESS not in (action.help, default)
        if is_said and type(default) in (int, float, str) and default:
            read = action.type if callable(action.type) else str
            assert read(found[0][2].strip('`')) == default, f'the default of {name}'


def test_every_command_and_exit_code_is_there() -> None:
    text = pages.section(PAGE, 'Programs')
    for words in ('demo', 'key show', 'key path', 'key export'):
        assert f'`dispy {words}`' in text
    codes = [value for name, value in vars(console).items() if name.startswith('EXIT_')]
    programs = [
        pages.section(each, 'Signals and exit codes') for each in (NODE_PAGE, SCHEDULER_PAGE)
    ]
    for page in (text, *programs):
        assert {str(code) for code in codes} - {row[0] for row in pages.rows(page)} == set()


def test_every_environment_variable_is_there() -> None:
    there = pages.spans(pages.section(PAGE, 'Environment variables'))
    used = set()
    for package in ('nodeserver', 'dispy_nb'):
        for path in sorted(Path(pages.ROOT / package).rglob('*.py')):
            constants = map(ast.walk, [ast.parse(path.read_text(encoding='utf-8'))])
            used |= {
                node.value
                for nodes_of_file in constants
                for node in nodes_of_file
                if isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and VARIABLE.fullmatch(node.value)
            }
    assert {'DISPY_SECRET', 'DISPY_NB_START'} <= used
    assert used - there - {'DISPY_NB_PYTHONPATH'} == set()  # that one is between our processes


def test_the_limits_of_a_relay_are_those_of_the_code() -> None:
    text = pages.section(RELAY_PAGE, 'Who can use it')
    for words in (
        f'{forwarding.MOST_WAITING}, of them {forwarding.MOST_WAITING_OF_ONE} from one address, '
        f'for {forwarding.GREETING_SECONDS:g} seconds',
        f'{forwarding.MOST_OWN:,}, of them {forwarding.MOST_OWN_OF_ONE} from one address',
        f'{relay.MOST_PROGRAMS:,}; one that says nothing for {relay.LEASE:g} s',
        f'| {discovery.MOST_NODES:,} |',
        f'| {relay.MOST_PORTS} |',
        f'| {forwarding.MOST_CARRIED:,} |',
        f'{pump.PORTION >> 10} KiB each way',
        f'one a minute for an address, {forwarding._LINES_PER} addresses',
    ):
        assert words in text, words


def test_what_is_said_of_a_scheduler_is_so() -> None:
    for words in (
        f'than {health.MOST_CONNECTIONS} connections the oldest is closed, and each ends after '
        f'{health.PATIENCE:g} seconds',
        f'{sharedscheduler.SEEK_DELAY:g} seconds after its start',
    ):
        assert words in ' '.join(SCHEDULER_PAGE.split()), words
    commands_said = {row[0] for row in pages.rows(pages.section(SCHEDULER_PAGE, 'Commands'))}
    for name, text in schedulercommands.HELP.items():
        found = [each for each in commands_said if f'`{name}`' in each]
        assert found, name
        assert text.partition(' (')[0] in pages.section(SCHEDULER_PAGE, 'Commands')


def test_the_limits_are_those_of_the_code() -> None:
    text = pages.section(PAGE, 'Limits')
    for words in (
        f'| {packed.LARGEST >> 20:,} MiB |',
        f'| {packed.LARGE >> 20} MiB |',
        f'{dispynode.MAX_FILE_SIZE >> 20} MiB; `dispynode --max_file_size`',
        f'{manifest.MOST_FILES:,}, with names of {manifest.LONGEST_NAME} bytes',
        f'{dependencies._SMALL >> 10} KiB each, {dependencies._MOST_KEPT >> 20} MiB in all',
        f'{project.MOST_BYTES // 1_000_000} MB',
        f'the first and the last {memfile.HEAD >> 20} MiB',
        f'the first {liveoutput.HEAD >> 10} KiB and at least the last {liveoutput.TAIL >> 10} KiB',
        f'{outputpace.MOST_BYTES >> 20} MiB a second',
        f'{shareddata.KEPT >> 20} MiB',
        f'| {discovery.MOST_NODES:,} |',
        f'| {local.MOST_SERVERS} |',
        f'{departure.ORPHAN_SECONDS / 60:g} minutes',
        f'| {templateend.CLEANUP_SECONDS:g} s |',
        f'{computation.NOTICE_DELAY:g} s, and again at most every {computation.NOTICE_INTERVAL:g}',
        f'at least {limits.LEAST_FILES} ',
        f'{configuration._LARGEST_FILE >> 10} KiB, {privatefiles._LARGEST_FILE >> 10} KiB',
    ):
        assert words in text
    parameters = pages.section(PAGE, 'JobCluster')
    for words in (
        f'{keys.SHORTEST_PASSPHRASE} to {keys.LONGEST_PASSPHRASE} characters',
        f'1 to {options.LONGEST_NAME} characters',
        f'1 to {options.MOST_WHOLE:,} ',
        f'0 to {options.MOST_LEVEL} ',
    ):
        assert words in parameters
    assert f'0 to {joboptions.MOST_RETRIES} ' in PAGE
    assert f'-{joboptions.HIGHEST_PRIORITY} to {joboptions.HIGHEST_PRIORITY} ' in PAGE
    assert f'-{nodes.MOST_CPUS:,} to {nodes.MOST_CPUS:,} ' in PAGE


# pages


@pytest.mark.parametrize('path', pages.PAGES, ids=lambda path: str(path.name))
def test_links_lead_to_headings_and_files_that_are_there(path: Path) -> None:
    for target, anchor in pages.links(pages.prose(path)):
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f'{path.name}: {target}'
        if anchor:
            assert anchor in pages.anchors(pages.prose(there)), f'{path.name}: {target}#{anchor}'


def test_the_readme_leads_to_every_page() -> None:
    linked = {target for target, _ in pages.links(pages.prose(pages.ROOT / 'README.md'))}
    assert {f'docs/{path.name}' for path in pages.PAGES[1:]} - linked == set()
