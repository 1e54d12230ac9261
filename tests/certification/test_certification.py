"""A whole certification of networks whose smoothed cosine is known, what it leaves, and wrong bounds that are seen."""

import json
from dataclasses import replace
from math import cos

import numpy as np
import pytest
import torch
from scipy.special import ndtr

from steadface.certification import smoothing
from steadface.certification.run import perform_certification
from steadface.certification.sandwich import Contradicted
from steadface.certification.side import Side
from steadface.certification.verifier import SmoothedVerifier, draws_of
from steadface.data.pairs import PairSet
from steadface.errors import Conflict, InvalidInput
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.series import Aim
from steadface.workflows import certify as workflow

from ..evaluation.faces import Damaged, LinearBackbone, without_people
from .networks import SIGMA, Angle, grey, request


def verifier(network, sigma=SIGMA, batch=64):
    device = torch.device("cpu")
    embedder = MirrorEmbedder(network, mirror=False)
    return SmoothedVerifier(embedder=embedder, run=embedder, sigma=sigma, batch=batch, device=device)


def test_noise_on_whole_levels_is_whole_levels_that_do_not_tell_the_image():
    smoother = verifier(Angle(), sigma=0.1)
    one, other = (255 * smoother.noisy(grey(level), 50, draws_of(0, "x")).double() for level in (3.0, 200.0))
    assert torch.equal(one.round() - 3, other.round() - 200)
    assert (one - one.round()).abs().max() < 1e-4
    assert float((one.round() - 3).std()) == pytest.approx(25.5, rel=0.02)
    assert one.min() < 0  # nothing is clipped


def test_draws_do_not_depend_on_the_batch_or_on_what_was_drawn_before():
    few, many = (verifier(Angle(), batch=batch).embeddings(grey(9.0), 40, draws_of(1, "y")) for batch in (7, 64))
    assert np.array_equal(few, many)
    assert not np.array_equal(few, verifier(Angle()).embeddings(grey(9.0), 40, draws_of(1, "z")))


def test_a_certificate_of_a_line_is_just_short_of_the_distance_to_it():
    network, draws, alpha, threshold = Angle(), 2000, 1e-3, 0.6
    cosines, distances = [], []
    for level in (120.0, 128.0, 140.0):
        embedded = verifier(network).embeddings(grey(level), draws, draws_of(2, f"{level}"))
        cosines.append(embedded[:, 0])
        distances.append(network.distance(torch.full((3, 16, 16), level / 255, dtype=torch.float64), threshold))
    side = Side(
        aim=Aim(goal="dodging", threshold=threshold),
        chosen=np.arange(3),
        enrolled=np.tile([1.0, 0.0], (3, 1)),
        cosines=np.stack(cosines),
        sigma=SIGMA,
        alpha=alpha,
    )
    assert min(distances) > 0.2
    assert (side.radii <= distances).all()
    assert side.radii == pytest.approx(distances, abs=0.1)
    assert side.least == pytest.approx(ndtr(np.array(distances) / SIGMA), abs=0.03)
    for radius in (0.0, 0.2):  # the exact fall of the median
        fallen = [cos(np.arccos(threshold) + network.gain * (radius - distance)) for distance in distances]
        assert (side.bounds(radius) <= fallen).all()
        assert side.bounds(radius) == pytest.approx(fallen, abs=0.03)


@pytest.fixture(scope="module")
def certified(tmp_path_factory):
    """A certification of a linear network, and the progress that it told."""
    told = []
    folder = tmp_path_factory.mktemp("certified")
    done = workflow.run_certification(request(), folder, progress=lambda *report: told.append(report))
    return done, told


def timeless(record):
    return record.model_copy(update={"seconds": None, "pairs_per_minute": None, "versions": {}, "command": ""})


def test_it_leaves_a_page_and_a_record_and_no_state(certified):
    done, told = certified
    assert {path.name for path in done.folder.iterdir()} == {"report.html", "certificate.json"}
    written = json.loads((done.folder / "certificate.json").read_text())
    assert written == done.record.to_json()
    assert told[-1][1] <= told[-1][2]
    page = (done.folder / "report.html").read_text()
    assert page.count("<figure") >= 3
    assert "Bonferroni" in page


def test_shares_fall_with_the_radius_and_come_from_the_pairs(certified):
    found = certified[0].record
    assert found.statements == 12 * 3
    assert found.alpha == pytest.approx(0.05 / 36)
    for goal in ("dodging", "impersonation"):
        pairs = [pair for pair in found.pairs if pair.goal == goal]
        entries = [entry for entry in found.certified if entry.goal == goal]
        assert [entry.radius for entry in entries] == [0, 0.05, 0.2]
        for entry in entries:
            assert entry.share == pytest.approx(np.mean([(pair.radius or 0) > entry.radius for pair in pairs]))
        shares = [entry.share for entry in found.curve if entry.goal == goal]
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] == 0
    for pair in found.pairs:  # a bound and a radius say the same
        for radius, bound in pair.bounds.items():
            accepted = bound >= found.threshold
            assert accepted == ((pair.radius or 0) >= float(radius)) or pair.goal == "impersonation"


def test_the_truth_lies_between_the_certificate_and_the_attack(certified):
    found = certified[0].record
    attacked = [pair for pair in found.pairs if pair.attacked]
    assert found.sandwich.pairs == len(attacked) > 0
    for pair in attacked:
        assert pair.radius > 0
        assert pair.distance is None or pair.distance > pair.radius
    broken = [pair for pair in attacked if pair.distance is not None]
    assert len(broken) == found.sandwich.broken > 0
    assert found.sandwich.closest == pytest.approx(min(pair.distance / pair.radius for pair in broken))


def test_what_was_stopped_goes_on_and_ends_the_same(certified, tmp_path):
    def stop(what, *_):
        if what == "draws impersonation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perform_certification(request(), tmp_path, progress=stop)
    again = perform_certification(request(), tmp_path).record
    assert timeless(again) == timeless(certified[0].record).model_copy(update={"versions": {}, "command": ""})
    with pytest.raises(Conflict, match="sigma"):
        perform_certification(request(sigma=0.3), tmp_path)


def test_a_finished_certificate_is_not_overwritten(certified):
    with pytest.raises(Conflict, match="finished certificate"):
        perform_certification(request(), certified[0].folder)


@pytest.mark.parametrize("planted", ["less noise than stated", "radii too large"])
def test_a_wrong_bound_is_seen(planted, tmp_path, monkeypatch):
    if planted == "less noise than stated":
        stated = SmoothedVerifier.noisy
        less = lambda self, *given: stated(replace(self, sigma=SIGMA / 3), *given)  # noqa: E731
        monkeypatch.setattr(SmoothedVerifier, "noisy", less)
    else:
        honest = smoothing.least_share
        monkeypatch.setattr(smoothing, "least_share", lambda *given: honest(*given) ** 0.02)
    with pytest.raises(Contradicted, match="does not hold") as raised:
        perform_certification(request(attacked=4), tmp_path)
    assert raised.value.exit_code == 8
    assert not (tmp_path / "certificate.json").exists()


def test_black_boxes_and_unknown_people_are_certified_without_an_attack(tmp_path):
    network = LinearBackbone()
    network.differentiable = False
    pairs = without_people(request(network).pairs)
    found = perform_certification(request(network, pairs=pairs, fmr=0.1), tmp_path).record
    assert found.sandwich is None
    assert any("no attack" in warning for warning in found.warnings)
    assert found.calibration.people is None
    assert {pair.attacked for pair in found.pairs} == {False}


def test_pairs_of_unreadable_images_are_left_out(tmp_path):
    asked = request(LinearBackbone(), attacked=0)
    whole = perform_certification(asked, tmp_path / "whole").record
    first = next(pair for pair in whole.pairs if pair.goal == "dodging")
    names = [asked.pairs.faces.name(index) for index in range(len(asked.pairs.faces))]
    broken = Damaged(asked.pairs.faces, frozenset([names.index(first.first)]))
    pairs = PairSet(**{**vars(asked.pairs), "faces": broken})
    found = perform_certification(replace(asked, pairs=pairs), tmp_path / "damaged").record
    assert 0 < len(whole.pairs) - len(found.pairs) < 4
    assert any("cannot be read" in warning for warning in found.warnings)
    kept = {(pair.first, pair.second): pair.cosine for pair in whole.pairs}
    assert all(kept[pair.first, pair.second] == pytest.approx(pair.cosine, abs=1e-6) for pair in found.pairs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"radii": (0.75,)}, "--samples"),
        ({"radii": ()}, "radii"),
        ({"radii": (-0.1,)}, "radii"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": float("nan")}, "sigma"),
        ({"confidence": 1.0}, "confidence"),
        ({"draws": 0}, "draws"),
        ({"attacked": -1}, "attacked"),
        ({"blur": 9.0}, "blur"),
        ({"threshold": 3.0}, "threshold"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(changes, named, tmp_path):
    with pytest.raises(InvalidInput, match=named):
        perform_certification(request(**changes), tmp_path)
    assert not list(tmp_path.iterdir())


def test_noise_that_a_network_cannot_stand_is_said(tmp_path):
    class Breaks(LinearBackbone):
        def embed(self, pixels):
            return super().embed(pixels) / (pixels.amax((1, 2, 3)) < 1.5)[:, None]

    with pytest.raises(InvalidInput, match="NaN"):
        perform_certification(request(Breaks()), tmp_path)
