"""What is installed: every program by its names, and the same packages whichever way."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / 'pyproject.toml').read_text('utf-8'))['project']
    return found


def test_every_program_of_nodes_is_installed_also_by_the_name_it_had_in_dispy() -> None:
    programs = sorted(path.stem for path in (ROOT / 'nodeserver/cli').glob('dispy*.py'))
    installed = {found.name: found for found in entry_points(group='console_scripts')}
    assert 'dispyscheduler' in programs
    for program in programs:
        for name in (program, f'{program}.py'):
            assert installed[name].value == f'nodeserver.cli.{program}:main'
            assert callable(installed[name].load())


def test_conda_gets_the_same_packages_as_pip() -> None:
    extras = project()['optional-dependencies']

    def listed(requirements: list[str]) -> set[str]:
        plain = set()
        for requirement in requirements:
            extra = re.fullmatch(r'dispy-nb\[(\w+)\]', requirement)
            plain |= listed(extras[extra[1]]) if extra else {requirement}
        return plain

    lines = (ROOT / 'environment.yml').read_text('utf-8').splitlines()
    items = {line.strip().removeprefix('- ') for line in lines if line.strip().startswith('- ')}
    conda = {item for item in items if re.match(r'[a-z].*[>=]', item)}
    python = f'python{project()["requires-python"]}'
    assert conda == {python} | set(project()['dependencies']) | listed(extras['all'])
