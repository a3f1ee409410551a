"""What the tests have shown is added up over several runs."""

import json

from tests.support import rows


def test_the_page_has_as_many_rows_as_it_says():
    ids = rows.known()
    assert f'({len(ids)} rows)' in rows.FEATURES.read_text(encoding='utf-8')


def test_unknown_ids_are_named():
    assert rows.unknown(['A01', 'A99', 'X03']) == ['A99', 'X03']


def test_a_row_is_shown_only_if_all_its_tests_passed(tmp_path):
    rows.merge(
        {
            'A01': {'t1': 'passed', 't2': 'passed'},
            'A02': {'t1': 'passed', 't2': 'failed'},
            'A03': {'t3': 'skipped'},
        },
        tmp_path,
    )
    assert json.loads((tmp_path / 'rows.json').read_text()) == ['A01']


def test_a_second_process_adds_to_the_first(tmp_path):
    rows.merge({'A01': {'t1': 'passed'}, 'A02': {'t1': 'passed'}}, tmp_path)
    rows.merge({'A02': {'t2': 'failed'}, 'B01': {'t3': 'passed'}}, tmp_path)
    assert json.loads((tmp_path / 'rows.json').read_text()) == ['A01', 'B01']
    rows.forget(tmp_path)
    assert not list(tmp_path.iterdir())
