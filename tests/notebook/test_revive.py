"""Views bring themselves up to date where anywidget has given up their model."""

import pytest

from dispy_nb.notebook.charts import model as chart
from dispy_nb.notebook.widget import model as widgets


@pytest.mark.row('V07')
@pytest.mark.row('V09')
def test_a_view_can_find_its_model_and_mend_it():
    """Anywidget drops what is sent to a model that takes 2 s to load: see revive.js."""
    for shown in (widgets.ClusterWidget(lambda content: None, {}), chart.new_chart({}, {})):
        assert shown.own_id == shown.model_id
        assert shown.get_state()['own_id'] == shown.model_id
        assert 'async function revive(model)' in shown._esm
        assert shown._esm.count('  revive(model);') == 1
