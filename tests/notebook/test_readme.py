"""The README's notebook section is all that a newcomer needs: its cells run as they stand."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest
from traitlets.config import Config

from tests.notebook.kernel import own_sockets

pytestmark = [
    pytest.mark.notebook,
    pytest.mark.usefixtures('loop_of_the_jupyter_client'),
]

README = Path(__file__).resolve().parents[2] / 'README.md'
OFF_THE_NETWORK = "nodes=nodes.nodes, ip_addr='127.0.0.1', port=0"


def cells() -> list[str]:
    section = README.read_text().partition('## In a notebook\n')[2].partition('\n## ')[0]
    return re.findall(r'^```python\n(.*?)^```$', section, re.MULTILINE | re.DOTALL)


@pytest.mark.row('V07', 'V09', 'V11', 'V13', 'V19')
def test_the_first_five_minutes(tmp_path: Path):
    written = cells()
    assert len(written) == 4
    set_up, *others, sweep = written
    set_up = set_up.replace('JobCluster(estimate)', f'JobCluster(estimate, {OFF_THE_NETWORK})')
    assert OFF_THE_NETWORK in set_up
    sweep = sweep.replace('-o squares', '-o squares --ip_addr 127.0.0.1 --nodes nodes.nodes')
    sources = [
        *(set_up, *others, 'cluster.wait()', '%load_ext dispy_nb', sweep),
        'print(squares[-1], max(abs(job() - 3.14159) for job in jobs) < 0.02)',
        'cluster.close(); nodes.close()',
    ]
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in sources]
    )
    nbclient.NotebookClient(
        notebook, timeout=60, store_widget_state=False, config=Config(KernelManager=own_sockets())
    ).execute(cwd=str(tmp_path))
    outputs = [cell.outputs for cell in notebook.cells]
    assert [each for cell in outputs for each in cell if each.get('name') == 'stderr'] == []
    # what is saved: numbers, a picture of the charts, and one of the plot
    (shown,) = outputs[0]
    assert '40 created, 0 waiting, 0 running, 40 finished' in shown.data['text/plain']
    for number in (1, 2):
        (shown,) = outputs[number]
        assert '<img src="data:image/svg+xml;base64,' in shown.data['text/html']
    assert outputs[6][0].text == '9801 True\n'
