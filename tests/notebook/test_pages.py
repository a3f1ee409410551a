"""What is saved of a cluster is complete, and is only text: nothing in it can act."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from dispy_nb.history import Failure
from dispy_nb.notebook.pages import FAILURES_SHOWN, NODES_SHOWN, html_page, text_page
from dispy_nb.snapshot import NodeSnapshot, ProvisionalSnapshot, Snapshot

NODE = NodeSnapshot('alpha', '10.0.0.1', 4, 3, 60, 30.0, False)
SNAPSHOT = Snapshot(
    *('render', 100, 27, 3, 60, 4, 6, 0, None),
    *(20.0, 3.5, (NODE,), (), '', False),
)


class Tags(HTMLParser):
    """Collects the names of elements and of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.text = ''
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names |= {tag, *(name for name, _ in attrs)}

    def handle_data(self, data: str) -> None:
        self.text += f' {data}'


def test_all_numbers_are_there_in_both_forms():
    words = '100 created, 27 waiting, 3 running, 60 finished, 4 failed, 6 cancelled; 3.5 jobs/s'
    assert words in text_page(SNAPSHOT)
    page = html_page(SNAPSHOT)
    assert words in page
    for width, title in (
        ('60.00%', '60 finished'),
        ('4.00%', '4 failed'),
        ('6.00%', '6 cancelled'),
    ):
        assert f'width:{width};height:12px' in page
        assert f'title="{title}"' in page
    for word in ('alpha', '10.0.0.1', '0.500'):
        assert word in text_page(SNAPSHOT)
        assert word in page


def test_what_jobs_and_nodes_say_is_no_markup():
    evil = '<script>alert(1)</script>'
    snapshot = replace(
        SNAPSHOT,
        name=evil,
        nodes=(replace(NODE, name=evil, address=evil),),
        failures=(Failure(evil, 'terminated', evil, f'trace\n{evil}', evil),),
        provisionals=(ProvisionalSnapshot(evil, 1, 0.0, evil),),
        notice=evil,
    )
    output = {'job': 1, 'id': evil, 'status': '', 'stdout': evil, 'stderr': evil}
    tags = Tags(html_page(snapshot, output))
    assert tags.names == {'div', 'b', 'pre', 'table', 'tr', 'th', 'td', 'style', 'title'}
    assert tags.text.count(evil) == 13


def test_the_parts_of_the_bar_never_need_more_room_than_there_is():
    for counts in ((30, 6, 34), (1, 1, 1), (333, 333, 333), (9999, 1, 0)):
        finished, failed, cancelled = counts
        snapshot = replace(SNAPSHOT, submitted=sum(counts), waiting=0, running=0, nodes=())
        page = html_page(replace(snapshot, finished=finished, failed=failed, cancelled=cancelled))
        widths = [float(width) for width in re.findall(r'width:([\d.]+)%;height:12px', page)]
        assert 99.9 <= sum(widths) <= 100.0 + 1e-9


@pytest.mark.row('V13', 'V17')
def test_failures_stand_with_the_end_of_their_tracebacks():
    detail = '\n'.join(
        ['Traceback (most recent call last):', *map(str, range(100)), 'ValueError: 7']
    )
    failure = Failure('7', 'terminated', 'ValueError: 7', detail, 'n=7')
    told = replace(SNAPSHOT, failures=(failure,) * 5, failed=40)
    for text in html_page(told), text_page(told):
        assert text.count('job 7 (n=7) terminated: ValueError: 7') == FAILURES_SHOWN
        assert '99\n' in text
        assert '\n50\n' not in text
        assert f'and {40 - FAILURES_SHOWN} more that failed' in text
    alone = failure._replace(detail='ValueError: 7')
    assert '<pre' not in html_page(replace(told, failures=(alone,)))


@pytest.mark.row('V11', 'V13')
def test_provisional_results_output_and_remaining_time_are_there():
    rows = (ProvisionalSnapshot('five', 3, 1700000000.0, '0.25'),)
    told = replace(SNAPSHOT, provisionals=rows, remaining=(180.0, 300.0))
    output = {'job': 5, 'id': 'five', 'status': 'finished', 'stdout': 'so far\n', 'stderr': 'oh\n'}
    assert 'job five: provisional result 3 at ' in text_page(told, output)
    for text in html_page(told, output), text_page(told, output):
        for words in ('0.25', '3 to 5 min left', 'last output of job five:', 'so far', 'oh'):
            assert words in text
    assert 'last output' not in html_page(told)


def test_nodes_beyond_a_screenful_are_counted():
    nodes = tuple(replace(NODE, name=f'n{n}', jobs_done=n) for n in range(NODES_SHOWN + 7))
    page = html_page(replace(SNAPSHOT, nodes=nodes))
    assert page.count('<tr>') == 1 + NODES_SHOWN
    assert 'and 7 more nodes' in page
    assert 'n22' in page
    assert '>n0<' not in page


def test_reason_is_shown_only_while_jobs_wait():
    told = replace(SNAPSHOT, notice='no node can be used')
    assert 'no node can be used' in html_page(told)
    done = replace(told, submitted=70, waiting=0, running=0)
    assert 'no node can be used' not in html_page(done)


def test_cluster_without_jobs_and_nodes_has_a_page():
    empty = replace(SNAPSHOT, submitted=0, waiting=0, running=0, finished=0, failed=0)
    empty = replace(empty, cancelled=0, elapsed=0.0, rate=0.0, nodes=())
    assert '0 created' in html_page(empty)
    assert '0 created' in text_page(empty)
