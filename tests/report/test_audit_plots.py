import math
import xml.etree.ElementTree as ET

import numpy as np

from steadface.report.audit.checks import surface_figure
from steadface.report.audit.corruptions import corruption_figure, corruption_note
from steadface.report.audit.curves import security_figure
from steadface.report.audit.distances import distance_figure, distances, half_broken
from steadface.report.audit.rates import Named, security

from .audits import audit, record


def _named(*audits):
    return [Named(name=f"model {n}", data=record(data)) for n, data in enumerate(audits)]


def test_every_figure_is_well_formed_and_repeats_byte_for_byte():
    data, other = audit(), audit(levels=9.0)
    for draw in (
        lambda: security_figure(_named(data)),
        lambda: security_figure(_named(data, other)),
        lambda: distance_figure(_named(data, other)),
        lambda: corruption_figure(record(data)),
        lambda: surface_figure(record(data)),
    ):
        text = draw()
        assert ET.fromstring(text).tag.endswith("svg")
        assert draw() == text


def test_nothing_to_draw_gives_no_figure():
    data = audit() | {"corruptions": [], "surfaces": []}
    for pair in data["pairs"]:
        pair["distance"] = None
    assert distance_figure(_named(data)) is None
    assert distance_figure(_named(data, audit() | {"distances": {}})) is None
    assert corruption_figure(record(data)) is None
    assert surface_figure(record(data)) is None


def test_a_flat_surface_can_be_drawn():
    data = audit()
    data["surfaces"][0]["cosine"] = np.full((13, 13), 0.5).tolist()
    assert surface_figure(record(data | {"surfaces": data["surfaces"][:1]})) is not None


def test_curves_begin_at_the_clean_rate():
    curve = security(record(audit()), "dodging")
    assert list(curve) == [0.0, 2 / 255, 4 / 255]
    assert curve[0.0].rate == 0.03
    assert list(security(record(audit()), "dodging", "Square")) == list(curve)
    assert security(record(audit()), "dodging", "unheard of") == {}


def test_pairs_that_hold_count_among_all():
    data = audit(levels=9.0)
    found = distances(record(data), "dodging")
    held = data["distances"]["linf"]["dodging"]["censored"]
    assert held > 0
    assert (found.pairs, len(found.found)) == (100, 100 - held)
    assert found.median == data["distances"]["linf"]["dodging"]["median"]
    share = np.searchsorted(found.found, found.median, side="right") / found.pairs
    assert abs(share - 0.5) <= 0.01


def test_a_median_beyond_the_search_is_not_made_up():
    data = audit(levels=60.0)
    found = distances(record(data), "dodging")
    assert math.isnan(found.median)
    assert found.high == math.inf
    assert "more than half of the pairs hold against dodging within 16.00" in half_broken(record(data)).lower()
    assert distance_figure(_named(data)) is not None


def test_the_worst_disturbance_is_named():
    data = audit()
    note = corruption_note(record(data)).replace("\N{NO-BREAK SPACE}", " ")
    assert "the worst disturbance (occlusion, severity 5) 42.0 %" in note
    assert f"causes {100 * data['worst_case'][0]['error_rate']:.1f} % errors" in note
