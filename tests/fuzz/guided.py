"""Fuzz one reader with inputs that are guided by coverage: atheris, which is libFuzzer.

    python -m tests.fuzz.guided --runs 1000000 --seed 1 target

`python -m tests.fuzz` runs this for each target.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=['nodeserver']):
    from tests.fuzz.engine import LONGEST, ROOM, little_memory, peak_memory
    from tests.fuzz.targets import targets

_ROOM = 8 * ROOM  # libFuzzer keeps what it found interesting, beside the reader
_RSS_LIMIT = 600  # megabytes


def main() -> None:
    """Run one target; libFuzzer ends the process, with a status of its own if it crashed."""
    parser = argparse.ArgumentParser(prog='python -m tests.fuzz.guided')
    parser.add_argument('--runs', type=int, required=True)
    parser.add_argument('--seed', type=int, required=True)
    parser.add_argument('name', choices=list(targets()))
    options = parser.parse_args()
    target = targets()[options.name]
    with tempfile.TemporaryDirectory(prefix='fuzz-') as corpus:
        for number, whole in enumerate(target.seeds()):
            Path(corpus, f'seed{number}').write_bytes(whole)
        left, before = options.runs, peak_memory()

        def one(data: bytes) -> None:
            nonlocal left
            target(data)
            left -= 1
            if not left:  # libFuzzer ends the process without coming back
                print(f'{(peak_memory() - before) >> 20} MB', flush=True)

        flags = [f'-atheris_runs={options.runs}', f'-seed={options.seed % (1 << 31)}']
        flags += [f'-max_len={LONGEST}', f'-rss_limit_mb={_RSS_LIMIT}', '-timeout=10']
        flags += [f'-artifact_prefix={tempfile.gettempdir()}/fuzz-crash-', '-verbosity=0']
        atheris.Setup([sys.argv[0], *flags, corpus], one)
        with little_memory(_ROOM):
            atheris.Fuzz()


if __name__ == '__main__':
    main()
