"""What is saved of a cluster is complete, and is only text: nothing in it can act."""

from dataclasses import replace
from html.parser import HTMLParser

from dispy_nb.history import Failure
from dispy_nb.notebook.pages import NODES_SHOWN, html_page, text_page
from dispy_nb.snapshot import NodeSnapshot, Snapshot

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
    assert 'width:70.0%' in page
    for word in ('alpha', '10.0.0.1', '0.500'):
        assert word in text_page(SNAPSHOT)
        assert word in page


def test_what_jobs_and_nodes_say_is_no_markup():
    evil = '<script>alert(1)</script>'
    snapshot = replace(
        SNAPSHOT,
        name=evil,
        nodes=(replace(NODE, name=evil, address=evil),),
        failures=(Failure(evil, 'terminated', evil, evil, ''),),
        notice=evil,
    )
    tags = Tags(html_page(snapshot))
    assert tags.names == {'div', 'b', 'table', 'tr', 'th', 'td', 'style'}
    assert tags.text.count(evil) == 6


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
