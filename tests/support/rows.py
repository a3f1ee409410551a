"""Which rows of docs/features.md the tests have shown; `python -m tests.support.rows` lists them.

marked test ─▶ its outcome ─▶ build/row-tests.json ─▶ build/rows.json: ids all of whose
                              (runs are merged)       marked tests have passed
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ROOT / 'docs' / 'features.md'
BUILD = ROOT / 'build'

RowTests = dict[str, dict[str, str]]  # row id -> test id -> outcome


def known(path: Path = FEATURES) -> list[str]:
    """Answer the ids of all rows, in the order of the page; X and Y are notes, not rows."""
    found = re.findall(r'^\| ([A-WZ]\d\d) \|', path.read_text(encoding='utf-8'), re.MULTILINE)
    return list(dict.fromkeys(found))  # the table of decisions at the end names some again


def unknown(ids: Iterable[object]) -> list[str]:
    """Answer those of the ids that the page does not have."""
    rows = set(known())
    return [str(row) for row in ids if row not in rows]


def shown(tests: RowTests) -> list[str]:
    """Answer the rows whose marked tests all passed: a skipped test shows nothing."""
    return sorted(row for row, outcomes in tests.items() if set(outcomes.values()) == {'passed'})


def merge(tests: RowTests, build: Path = BUILD) -> None:
    """Add one run's outcomes to those of earlier runs: several processes make up one run."""
    build.mkdir(exist_ok=True)
    merged = _read(build / 'row-tests.json')
    for row, outcomes in tests.items():
        merged.setdefault(row, {}).update(outcomes)
    _write(build / 'row-tests.json', merged)
    _write(build / 'rows.json', shown(merged))


def forget(build: Path = BUILD) -> None:
    """Begin a new run: nothing is shown yet."""
    for name in ('rows.json', 'row-tests.json'):
        (build / name).unlink(missing_ok=True)


def main() -> int:
    """Print what is shown, what failed and what is missing."""
    parser = argparse.ArgumentParser(prog='python -m tests.support.rows', description=__doc__)
    parser.add_argument('--brief', action='store_true', help='one line, and failed rows')
    parser.add_argument('--forget', action='store_true', help='begin a new run')
    chosen = parser.parse_args()
    if chosen.forget:
        forget()
        return 0
    _print_report(_read(BUILD / 'row-tests.json'), chosen.brief)
    return 0


def _print_report(tests: RowTests, brief: bool) -> None:
    rows, good = known(), shown(tests)
    print(f'rows of docs/features.md shown: {len(good)} of {len(rows)}')
    for row in sorted(set(tests) - set(good)):
        bad = [f'{test} {outcome}' for test, outcome in tests[row].items() if outcome != 'passed']
        print(f'  {row} not shown: {"; ".join(bad)}')
    if not brief:
        print('shown:', ' '.join(good) or 'none')
        print('missing:', ' '.join(row for row in rows if row not in tests) or 'none')


def _read(path: Path) -> RowTests:
    if not path.exists():
        return {}
    tests: RowTests = json.loads(path.read_text(encoding='utf-8'))
    return tests


def _write(path: Path, value: object) -> None:
    fresh = path.with_suffix('.new')
    fresh.write_text(json.dumps(value, indent=1, sort_keys=True) + '\n', encoding='utf-8')
    fresh.replace(path)


if __name__ == '__main__':
    sys.exit(main())
