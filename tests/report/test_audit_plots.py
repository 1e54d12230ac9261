import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from steadface.report.audit_captions import corruption_note, half_broken
from steadface.report.audit_data import Named, distances, security
from steadface.report.audit_plots import distance_figure, security_figure
from steadface.report.audit_surroundings import corruption_figure, surface_figure

from .audits import audit


def _named(*audits):
    return [Named(name=f"model {n}", data=data) for n, data in enumerate(audits)]


def test_every_figure_is_well_formed_and_repeats_byte_for_byte():
    data, other = audit(), audit(levels=9.0)
    for draw in (
        lambda: security_figure(_named(data)),
        lambda: security_figure(_named(data, other)),
        lambda: distance_figure(_named(data, other)),
        lambda: corruption_figure(data),
        lambda: surface_figure(data),
    ):
        text = draw()
        assert ET.fromstring(text).tag.endswith("svg")
        assert draw() == text


def test_nothing_to_draw_gives_no_figure():
    assert security_figure(_named({})) is None
    assert security_figure(_named({}, {})) is None
    assert distance_figure(_named({}, {})) is None
    assert corruption_figure({}) is None
    unknown = {"error_rate": None, "eps": 0.1, "severity": None, "goal": "dodging", "distance": None, "attack": None}
    data = {key: [unknown] for key in ("worst_case", "attacks", "corruptions", "pairs")}
    assert security_figure(_named(data, {})) is not None  # axes alone: a radius was tried
    assert distance_figure(_named(data)) is None
    assert corruption_figure(data) is None
    assert surface_figure({"surfaces": [{"goal": "dodging", "cosine": None}]}) is None


@pytest.mark.parametrize("spoilt", [[[0.1, 0.2]], [[math.nan] * 13] * 13, "?", [[1], [1, 2]]])
def test_a_surface_that_is_not_whole_is_left_out(spoilt):
    data = audit()
    data["surfaces"] = [data["surfaces"][0] | {"cosine": spoilt}]
    assert surface_figure(data) is None


def test_a_flat_surface_can_be_drawn():
    data = audit()
    data["surfaces"][0]["cosine"] = np.full((13, 13), 0.5).tolist()
    assert surface_figure(data | {"surfaces": data["surfaces"][:1]}) is not None


def test_curves_begin_at_the_clean_rate():
    curve = security(audit(), "dodging")
    assert list(curve) == [0.0, 2 / 255, 4 / 255]
    assert curve[0.0].rate == 0.03
    assert list(security(audit(), "dodging", "Square")) == list(curve)
    assert security(audit(), "dodging", "unheard of") == {}


def test_pairs_that_hold_count_among_all():
    data = audit(levels=9.0)
    found = distances(data, "dodging")
    held = data["distances"]["linf"]["dodging"]["censored"]
    assert held > 0
    assert (found.pairs, len(found.found)) == (100, 100 - held)
    assert found.median == data["distances"]["linf"]["dodging"]["median"]
    share = np.searchsorted(found.found, found.median, side="right") / found.pairs
    assert abs(share - 0.5) <= 0.01


def test_a_median_beyond_the_search_is_not_made_up():
    data = audit(levels=60.0)
    found = distances(data, "dodging")
    assert math.isnan(found.median)
    assert found.high == math.inf
    assert "more than half of the pairs hold against dodging within 16.00" in half_broken(data).lower()
    assert distance_figure(_named(data)) is not None


def test_the_worst_disturbance_is_named():
    data = audit()
    note = corruption_note(data).replace("\N{NO-BREAK SPACE}", " ")
    assert "the worst disturbance (occlusion, severity 5) 42.0 %" in note
    assert f"causes {100 * data['worst_case'][0]['error_rate']:.1f} % errors" in note
