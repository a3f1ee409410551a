"""A stand-in for Docker that follows a Dockerfile: there is no Docker engine where tests run.

The base image is this machine's own file system, seen through an overlay, with a Python of its
own that has what the package depends on.  Images and containers are layers above it; a container
has process ids and mounts of its own and, as with `--net=host`, the machine's network.  All lies
in memory, in a mount namespace that goes with its keeper.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

PATH = '/opt/python/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin'
DEPENDENCIES = ('cloudpickle', 'msgspec', 'platformdirs', 'psutil', 'pyzmq', 'pip', 'setuptools')


# a `docker` that knows `run` with the options of the documents
_RUN = """#!/bin/sh
set -e
[ "$1" = run ]; shift
while :; do
    case $1 in
    --net=host|-it|--rm) shift ;;
    -e) given="$given $2=$(printenv "$2")"; shift 2 ;;
    -v) volume=$2; shift 2 ;;
    --user) user=$2; shift 2 ;;
    *) break ;;
    esac
done
[ "$1" = dispy ]; shift
[ $# -gt 0 ] || set -- {command}
id=container-$$
export id given volume user
exec nsenter -m -t {keeper} unshare -m -p -f --kill-child=KILL sh -c {inside} sh {entry} "$@"
"""


@dataclass
class Recipe:
    """What the lines of a Dockerfile have said so far."""

    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {'PATH': PATH})
    user: str = 'root'
    directory: str = '/'
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)


def lines_of(text: str) -> Iterator[tuple[str, str]]:
    """Read instructions and what they say, without comments."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith('#')]
    for line in re.sub(r'\\\n', ' ', '\n'.join(kept)).splitlines():
        if line.strip():
            instruction, _, rest = line.strip().partition(' ')
            yield instruction.upper(), rest.strip()


class Docker:
    """Builds an image and runs containers of it; `directory` has the context."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.recipe = Recipe()
        self._layers = directory / 'layers'
        self._layers.mkdir()
        self.bin = directory / 'bin'
        self.bin.mkdir()
        mounted = f'mount -t tmpfs tmpfs {self._layers} && echo mounted && exec sleep infinity'
        self._keeper = subprocess.Popen(
            ['unshare', '-m', 'sh', '-c', mounted], stdout=subprocess.PIPE, text=True
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == 'mounted\n'

    def close(self) -> None:
        """Forget all images and containers."""
        self._keeper.kill()
        self._keeper.communicate()

    def build(self, dockerfile: Path) -> None:
        """Follow a Dockerfile, each line as it stands."""
        self._inside(self._new_layer('image', '/'))
        for instruction, rest in lines_of(dockerfile.read_text(encoding='utf-8')):
            getattr(self, f'_{instruction.lower()}')(rest)
        self._inside(f'umount -R {self._layers}/image/root')
        self._write_command()

    # what instructions do

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition('=')
        self.recipe.arguments[name] = default

    def _from(self, rest: str) -> None:
        """Prepare what stands for the base image: Python, and what the package depends on."""
        assert re.fullmatch(r'python:\$\{PYTHON\}-slim', rest), rest
        site = f'/opt/python/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages'
        root = self._layers / 'image' / 'root'
        hidden = [p for p in Path(sys.base_prefix).parents if not p.stat().st_mode & 1]
        opened = ' '.join(f'{root}{path}' for path in hidden) or f'{root}/opt'
        python = Path(sys.base_prefix, 'bin', f'python3.{sys.version_info[1]}')
        base = self.directory / 'base'
        base.mkdir()
        for name in DEPENDENCIES:
            _copy_distribution(name, base)
        self._inside(
            f'chmod a+x {opened} && chroot {root} {python} -m venv --without-pip /opt/python '
            f'&& cp -r {base}/. {root}{site}/ && chmod -R a+rX {root}{site}'
        )

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        found = [path for source in sources for path in self.directory.glob(source)]
        assert found, f'COPY {rest}: nothing is there'
        place = f'{self._layers}/image/root{target}'
        words = shlex.join(map(str, found))
        self._inside(f'mkdir -p {place} && cp {words} {place} && chmod -R a+rX {place}')

    def _run(self, rest: str) -> None:
        root = f'{self._layers}/image/root'
        environ = [f'{n}={v}' for n, v in (self.recipe.environment | self.recipe.arguments).items()]
        # nothing is fetched: what is not in the base image or beside the Dockerfile is missing
        environ += ['PIP_NO_INDEX=1', 'PIP_CONFIG_FILE=/dev/null', 'PIP_ROOT_USER_ACTION=ignore']
        words = shlex.join(['chroot', root, 'env', '-i', *environ, '/bin/sh', '-c', rest])
        self._inside(words)

    def _user(self, rest: str) -> None:
        self.recipe.user = rest

    def _workdir(self, rest: str) -> None:
        self.recipe.directory = rest

    def _env(self, rest: str) -> None:
        for pair in shlex.split(rest):
            name, _, value = pair.partition('=')
            self.recipe.environment[name] = value

    def _expose(self, rest: str) -> None:
        """Say what is said for people."""

    def _entrypoint(self, rest: str) -> None:
        self.recipe.entry = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self.recipe.command = json.loads(rest)

    # containers

    def _write_command(self) -> None:
        """Write the `docker` that runs this image."""
        recipe, layers = self.recipe, self._layers
        environ = shlex.join(f'{name}={value}' for name, value in recipe.environment.items())
        root = f'{layers}/$id/root'
        inside = (
            f'cd {shlex.quote(recipe.directory)}; as=${{user:-{recipe.user}}}; '
            'exec setpriv --reuid="${as%:*}" --regid="${as#*:}" --clear-groups "$@"'
        )
        start = (
            f'exec chroot {root} env -i {environ} $given user="$user" '
            f'sh -c {shlex.quote(inside)} sh "$@"'
        )
        mounts = (
            f'mount -t proc proc {root}/proc; mount -t tmpfs tmpfs {root}/tmp; '
            'if [ "$volume" ]; then within=${volume#*:}; '
            f'within={root}${{within%:ro}}; : > "$within"; '
            'mount --bind "${volume%%:*}" "$within"; fi; '
        )
        layer = self._new_layer('$id', f'{layers}/image/up:/')
        script = _RUN.format(
            command=shlex.join(recipe.command),
            keeper=self._keeper.pid,
            inside=shlex.quote(f'{layer}; {mounts}{start}'),
            entry=shlex.join(recipe.entry),
        )
        command = self.bin / 'docker'
        command.write_text(script)
        command.chmod(0o755)

    def _new_layer(self, name: str, lower: str) -> str:
        place = f'{self._layers}/{name}'
        below = f'lowerdir={lower},upperdir={place}/up,workdir={place}/work'
        return (
            f'set -e; mkdir -p {place}/up {place}/work {place}/root; '
            f'mount -t overlay overlay -o {below} {place}/root; '
            f'mount --rbind /dev {place}/root/dev'
        )

    def _inside(self, script: str) -> None:
        command = ['nsenter', '-m', '-t', str(self._keeper.pid), 'sh', '-c', script]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f'{script}\n{done.stdout}{done.stderr}'


def _copy_distribution(name: str, target: Path) -> None:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:  # not all have setuptools
        return
    for file in files:
        source, place = Path(str(file.locate())), target / str(file)
        if '..' not in file.parts and source.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, place)


def why_not() -> str:
    """Say why there can be no such containers here, '' if there can; CI must not do without."""
    reason = _obstacle()
    assert not reason or os.environ.get('CI') != 'true', reason
    return reason


def _obstacle() -> str:
    if sys.platform != 'linux' or os.geteuid():
        return 'only root can make mount namespaces and overlays, on Linux'
    with tempfile.TemporaryDirectory() as place:
        script = (
            f'mount -t tmpfs tmpfs {place} && cd {place} && mkdir up work root && '
            'mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root'
        )
        command: Sequence[str] = ('unshare', '-m', 'sh', '-c', script)
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return 'unshare is missing (package util-linux)'
    return '' if done.returncode == 0 else f'this container may not mount overlays: {done.stderr}'


@contextmanager
def docker(dockerfile: Path, *context: Path) -> Iterator[Docker]:
    """Build an image from a directory with a Dockerfile and these files."""
    directory = Path(tempfile.mkdtemp(prefix='dnd', dir='/tmp'))
    directory.chmod(0o755)
    made = Docker(directory)
    try:
        for path in (dockerfile, *context):
            shutil.copy(path, directory)
        made.build(directory / 'Dockerfile')
        yield made
    finally:
        made.close()
        shutil.rmtree(directory)
