"""Run all measurements, one after the other: `python -m benchmarks`."""

import subprocess
import sys

PARTS = (('benchmarks.cluster',), ('benchmarks.processes', '2'), ('benchmarks.links',))


def main() -> int:
    """Run each part in a process of its own; 1 if one failed."""
    failed = 0
    for part in PARTS:
        print(f'== {" ".join(part)}', flush=True)
        failed += subprocess.run([sys.executable, '-m', *part], check=False).returncode != 0
    return min(failed, 1)


if __name__ == '__main__':
    sys.exit(main())
