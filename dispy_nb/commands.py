"""`dispy`: one command for what is no program of its own (D14)."""

import sys
from collections.abc import Sequence

from dispy_nb.certcommand import add_cert_parser
from dispy_nb.demo import add_demo_parser
from dispy_nb.doctorcommand import add_doctor_parser
from dispy_nb.keycommand import add_key_parser
from dispy_nb.statuscommand import add_status_parser
from nodeserver.cli.console import EXIT_USAGE, run_program, set_up_logging
from nodeserver.cli.options import OptionParser, new_parser


def parser() -> OptionParser:
    """Return the parser of all subcommands; `arguments.run(arguments)` runs the chosen one."""
    words = 'Try dispy-nb, find out what is wrong, and look after its keys and certificates.'
    parser = new_parser('dispy', words)
    parser.set_defaults(run=None, log_level='warning')  # people run these, and read the results
    subparsers = parser.add_subparsers(title='commands', metavar='COMMAND')
    add_demo_parser(subparsers)
    add_doctor_parser(subparsers)
    add_key_parser(subparsers)
    add_cert_parser(subparsers)
    add_status_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; its exit status (D13)."""
    commands = parser()
    arguments = commands.parse_args(argv)
    if arguments.run is None:
        commands.print_help(sys.stderr)
        return EXIT_USAGE
    set_up_logging(arguments.log_level, arguments.log_format, arguments.debug)
    return run_program(lambda: arguments.run(arguments), debug=arguments.debug)
