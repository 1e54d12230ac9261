import pytest
import torch
import torch.nn.functional as F

from steadface.training.regularizers import Embeddings, PullRepel, cosine, pull, triplet

TERMS = ("triplet", "pull", "target_pull", "reference_adversarial", "reference_source")


def only(term, weight=1.0, margin=0.2):
    return PullRepel(margin=margin, **(dict.fromkeys(TERMS, 0.0) | {term: weight}))


@pytest.fixture
def unit(seeded):
    def make(seed, rows=5):
        return F.normalize(torch.randn(rows, 4, generator=seeded(seed), dtype=torch.float64))

    return make


@pytest.fixture
def embeddings(unit):
    return Embeddings(
        source=unit(1), adversarial=unit(2), target=unit(3), repel=unit(4), reference=unit(5), keeps_identity=True
    )


def slow(e, *, margin, weights):
    """The formula of the module, one sample and one coordinate at a time."""

    def cos(a, b):
        return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))

    total, rows = 0.0, len(e.source)
    for s, a, t, q, ref in zip(e.source, e.adversarial, e.target, e.repel, e.reference, strict=True):
        total += weights["triplet"] * max(0.0, margin + cos(a, q) - cos(a, s))
        total += weights["pull"] * (1 - cos(a, s))
        total += weights["target_pull"] * (1 - cos(t, s))
        total += weights["reference_adversarial"] * (1 - cos(a, ref))
        total += weights["reference_source"] * (1 - cos(s, ref))
    return total / rows


def test_the_sum_is_the_formula_with_its_weights(embeddings):
    weights = dict(zip(TERMS, (1.3, 0.7, 0.5, 0.3, 0.9), strict=True))
    value = float(PullRepel(margin=0.4, **weights)(embeddings))
    assert value == pytest.approx(slow(embeddings, margin=0.4, weights=weights), abs=1e-12)
    for term in TERMS:
        alone = {name: float(name == term) for name in TERMS}
        assert float(only(term)(embeddings)) == pytest.approx(slow(embeddings, margin=0.2, weights=alone), abs=1e-12)


@pytest.mark.parametrize("term", TERMS)
def test_gradients_of_every_term(term, embeddings, unit):
    """Numerically, with respect to the inputs that the term may move, through the normalisation."""
    moved = {"triplet": "adversarial", "pull": "adversarial", "target_pull": "target"}
    name = moved.get(term, term.removeprefix("reference_"))

    def value(raw):
        return only(term)(Embeddings(**(vars(embeddings) | {name: F.normalize(raw)})))

    raw = (2 * unit(6)).requires_grad_(True)
    assert torch.autograd.gradcheck(value, (raw,))
    assert float(torch.autograd.grad(value(raw), raw)[0].abs().max()) > 1e-3


@pytest.mark.parametrize("term", TERMS)
def test_stop_gradients_are_where_the_formula_has_them(term, embeddings):
    """``sg z_s`` in triplet and pulls, ``sg q_t`` and ``sg z_ref`` everywhere; only the first-named sample moves."""
    moves = {
        "triplet": {"adversarial"},
        "pull": {"adversarial"},
        "target_pull": {"target"},
        "reference_adversarial": {"adversarial"},
        "reference_source": {"source"},
    }[term]
    names = ("source", "adversarial", "target", "repel", "reference")
    leaves = {name: getattr(embeddings, name).clone().requires_grad_(True) for name in names}
    value = only(term)(Embeddings(**leaves, keeps_identity=True))
    gradients = torch.autograd.grad(value, tuple(leaves.values()), allow_unused=True)
    assert {name for name, g in zip(names, gradients, strict=True) if g is not None} == moves


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5, 1.0])
def test_no_triplet_penalty_at_perfect_invariance(margin, unit):
    z, q = unit(7, rows=2000), unit(8, rows=2000)
    far = cosine(z, q) <= 1 - margin
    assert int(far.sum()) > 500
    robust = Embeddings(source=z[far], adversarial=z[far], target=z[far], repel=q[far], keeps_identity=True)
    assert float(triplet(robust, margin=margin)) == pytest.approx(0.0, abs=1e-12)
    assert float(PullRepel(margin=margin, target_pull=1.0)(robust)) == pytest.approx(0.0, abs=1e-12)


def test_no_triplet_penalty_up_to_exactly_the_margin_and_a_penalty_beyond():
    z = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    for cos, expected in ((0.8, 0.0), (0.79, 0.0), (0.81, 0.01), (1.0, 0.2)):
        q = torch.tensor([[cos, (1 - cos**2) ** 0.5]], dtype=torch.float64)
        robust = Embeddings(source=z, adversarial=z, target=z, repel=q, keeps_identity=True)
        assert float(triplet(robust, margin=0.2)) == pytest.approx(expected, abs=1e-12)


def test_moving_towards_the_designated_class_is_penalised(unit):
    z, q = unit(10), unit(11)
    penalties = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        moved = F.normalize((1 - share) * z + share * q)
        penalties.append(float(triplet(Embeddings(source=z, adversarial=moved, repel=q), margin=0.2)))
    assert penalties == sorted(penalties)
    assert penalties[-1] > penalties[0]


def test_pull_is_zero_at_home_and_two_at_the_antipode(unit):
    z = unit(12)
    assert float(pull(z, z)) == pytest.approx(0.0, abs=1e-12)
    assert float(pull(-z, z)) == pytest.approx(2.0)


def test_terms_without_their_samples_are_left_out(unit):
    lonely = Embeddings(source=unit(1), adversarial=unit(2))
    everything = PullRepel(triplet=1, pull=1, target_pull=1, reference_adversarial=1, reference_source=1)
    assert float(everything(lonely)) == pytest.approx(float(pull(unit(2), unit(1))))


def test_another_persons_face_is_not_pulled_home(unit):
    other = Embeddings(source=unit(1), adversarial=unit(2), target=unit(3), repel=unit(3), keeps_identity=False)
    assert float(only("target_pull")(other)) == 0.0
