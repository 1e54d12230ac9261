import pytest
import torch
import torch.nn.functional as F

from steadface.attacks import PGD, ball
from steadface.errors import SteadfaceError
from steadface.training.targets import (
    Candidates,
    KeptBlend,
    Mapped,
    Nearest,
    OtherFace,
    PerturbedSource,
    RandomOther,
    Source,
    TakenFor,
)

from ..rounding import rounding, terms

PEOPLE = 6
RING = torch.tensor([(label + 2) % PEOPLE for label in range(PEOPLE)])


@pytest.fixture
def make_source(network, faces_of, make_head, seeded):
    """Two faces each of four of the six people, seen by the tiny network in evaluation mode."""

    def make(*, prototypes=True, ramp=1.0):
        embed = network().eval()
        labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
        images = faces_of(labels, seeded(1))
        with torch.no_grad():
            embeddings = F.normalize(embed(images))
        known = make_head().prototypes if prototypes else None
        return Source(images=images, labels=labels, embeddings=embeddings, embed=embed, prototypes=known, ramp=ramp)

    return make


def at_angles(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def seen(embeddings, labels):
    return Source(images=torch.zeros(len(labels), 3, 1, 1), labels=labels, embeddings=embeddings, embed=torch.flatten)


def designate_nearest(source, candidates, **options):
    return Nearest(**options)(source, candidates, torch.Generator()).tolist()


def test_nearest_is_the_most_similar_other_identity():
    source = seen(at_angles(0, 10), torch.tensor([0, 1]))
    candidates = Candidates(embeddings=at_angles(5, 20, 60, 100), labels=torch.tensor([0, 1, 2, 3]))
    assert designate_nearest(source, candidates, same_person=1.0) == [1, 0]


def test_nearest_skips_likely_same_person_labels():
    """cos 53 degrees is 0.6: people within it are likely one person under two labels."""
    source = seen(at_angles(0), torch.tensor([0]))
    candidates = Candidates(embeddings=at_angles(1, 30, 60, 100), labels=torch.tensor([0, 1, 2, 3]))
    assert designate_nearest(source, candidates, same_person=0.6) == [2]


def test_nearest_skips_a_label_for_any_of_its_faces():
    """Label 1 shows the source person once, and so it does in its less similar picture."""
    source = seen(at_angles(0), torch.tensor([0]))
    candidates = Candidates(embeddings=at_angles(30, 60, 80, 100), labels=torch.tensor([1, 1, 2, 3]))
    assert designate_nearest(source, candidates, same_person=0.6) == [2]


def test_nearest_takes_the_farthest_where_all_are_likely_the_same():
    source = seen(at_angles(0), torch.tensor([0]))
    candidates = Candidates(embeddings=at_angles(0, 10, 20), labels=torch.tensor([0, 1, 2]))
    assert designate_nearest(source, candidates, same_person=0.6) == [2]


def test_random_designation_is_uniform_over_the_others(seeded):
    source = seen(at_angles(*[0.0] * 4000), torch.zeros(4000, dtype=torch.long))
    candidates = Candidates(embeddings=at_angles(0, 10, 20, 30), labels=torch.arange(4))
    drawn = RandomOther()(source, candidates, seeded(2))
    counts = torch.bincount(drawn, minlength=4)
    assert counts[0] == 0
    assert float((counts[1:] / 4000 - 1 / 3).abs().max()) < 4 * (1 / 3 * 2 / 3 / 4000) ** 0.5
    assert torch.equal(drawn, RandomOther()(source, candidates, seeded(2)))


def test_a_map_is_followed(make_source, faces_of, seeded):
    source = make_source()
    for sampler in (
        OtherFace(designate=Mapped(RING), faces=faces_of),
        KeptBlend(designate=Mapped(RING), faces=faces_of),
        PerturbedSource(designate=Mapped(RING), attack=PGD(ball=ball("linf", 0.1), steps=2)),
    ):
        assert torch.equal(sampler(source, seeded(3)).labels, RING[source.labels])


def test_a_map_to_oneself_is_refused():
    with pytest.raises(SteadfaceError, match="first: 1"):
        Mapped(torch.tensor([1, 1, 0]))


def test_designated_people_of_whom_nothing_is_at_hand_are_refused(make_source, faces_of, seeded):
    ring, attack = Mapped(RING), PGD(ball=ball("linf", 0.1), steps=1)
    without_prototypes = make_source(prototypes=False)
    for sampler, source in (
        (OtherFace(designate=ring), make_source()),
        (KeptBlend(designate=ring), make_source()),
        (KeptBlend(designate=ring, faces=faces_of), without_prototypes),
        (PerturbedSource(designate=ring, attack=attack), without_prototypes),
    ):
        with pytest.raises(SteadfaceError, match="nothing is at hand"):
            sampler(source, seeded(4))


def test_a_batch_of_one_identity_is_refused(seeded):
    source = seen(at_angles(0, 1), torch.tensor([3, 3]))
    for designate in (Nearest(), RandomOther()):
        with pytest.raises(SteadfaceError, match="single identity"):
            designate(source, Candidates(embeddings=source.embeddings, labels=source.labels), seeded(5))


def test_another_persons_face_comes_from_the_batch(make_source, seeded):
    source = make_source()
    targets = OtherFace(designate=RandomOther())(source, seeded(6))
    assert not targets.keeps_identity
    assert targets.images is None, "its embedding is known, so that nobody looks at it"
    for label, repel in zip(targets.labels, targets.repel, strict=True):
        owner = [i for i, known in enumerate(source.embeddings) if torch.equal(known, repel)]  # q_t = sg z_t, free
        assert len(owner) == 1
        assert source.labels[owner[0]] == label


def test_of_several_faces_the_one_most_like_the_source_is_taken(make_source, seeded):
    source = make_source()
    targets = OtherFace(designate=Nearest(same_person=1.0))(source, seeded(7))
    for row, (label, repel) in enumerate(zip(targets.labels, targets.repel, strict=True)):
        cosines = source.embeddings[row] @ source.embeddings[source.labels == label].T
        assert float(source.embeddings[row] @ repel) == pytest.approx(float(cosines.max()), abs=rounding(8))


def test_a_dominated_blend_repels_its_own_embedding(make_source, faces_of, seeded):
    source = make_source()
    targets = OtherFace(designate=Mapped(RING), share=0.7, faces=faces_of)(source, seeded(8))
    expected = 0.7 * faces_of(RING[source.labels], seeded(8)) + 0.3 * source.images
    assert torch.allclose(targets.images, expected)
    assert torch.allclose(targets.repel, F.normalize(source.embed(expected)).detach(), atol=1e-6)
    assert not targets.keeps_identity
    assert not targets.repel.requires_grad


def test_a_blend_that_keeps_the_identity_repels_the_prototype(make_source, seeded):
    source = make_source()
    targets = KeptBlend(designate=RandomOther(), share=0.3)(source, seeded(9))
    other = (targets.images - 0.7 * source.images) / 0.3
    for image, label, repel in zip(other, targets.labels, targets.repel, strict=True):
        distances = (source.images - image).flatten(1).norm(dim=1)
        assert source.labels[distances.argmin()] == label
        assert float(distances.min()) < 1e-4
        assert torch.equal(repel, source.prototypes[label])  # q_t = sg p_t
    assert targets.keeps_identity


def test_without_a_head_a_prototype_is_the_mean_clean_embedding(make_source, seeded):
    source = make_source(prototypes=False)
    targets = KeptBlend(designate=RandomOther())(source, seeded(10))
    for label, repel in zip(targets.labels, targets.repel, strict=True):
        mean = source.embeddings[source.labels == label].mean(dim=0)
        assert torch.allclose(repel, mean / mean.norm(), atol=rounding(8))


def test_shares_must_leave_no_doubt_who_dominates():
    for kind, shares in ((OtherFace, (0.5, 0.2, 1.1)), (KeptBlend, (0.0, 0.5, 0.9))):
        for share in shares:
            with pytest.raises(SteadfaceError, match=r"targets\.share"):
                kind(designate=Nearest(), share=share)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_perturbed_source_is_taken_for_the_designated_class_inside_its_ball(make_source, seeded, norm):
    radius = 0.3 if norm == "linf" else 6.0
    source = make_source()
    sampler = PerturbedSource(designate=RandomOther(), attack=PGD(ball=ball(norm, radius), steps=30))
    targets = sampler(source, seeded(11))
    with torch.no_grad():
        verdict = (F.normalize(source.embed(targets.images)) @ source.prototypes.T).argmax(dim=1)
    assert torch.equal(verdict, targets.labels)
    assert not (targets.labels == source.labels).any()
    delta = (targets.images.double() - source.images.double()).flatten(1)
    size = delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)
    assert float(size.max()) <= radius + 1e-5
    assert 0 <= float(targets.images.min()) <= float(targets.images.max()) <= 1
    assert torch.equal(targets.repel, source.prototypes[targets.labels])
    assert targets.keeps_identity


def test_perturbed_source_follows_the_ramp(make_source, seeded):
    sampler = PerturbedSource(designate=RandomOther(), attack=PGD(ball=ball("linf", 0.2), steps=3))
    source = make_source(ramp=0.25)
    delta = sampler(source, seeded(12)).images - source.images
    assert 0.01 < float(delta.abs().max()) <= 0.05 + 1e-6


def test_taken_for_is_positive_exactly_where_the_head_says_so(make_source):
    source = make_source()
    verdict = (source.embeddings @ source.prototypes.T).argmax(dim=1)
    for wanted in range(PEOPLE):
        score = TakenFor(embed=source.embed, prototypes=source.prototypes, wanted=torch.full((8,), wanted))
        values = score(source.images).detach()
        assert torch.equal(score.succeeded(values), verdict == wanted)
        few = score.take(torch.tensor([5, 2]))(source.images[[5, 2]]).detach()
        assert torch.allclose(few, values[[5, 2]], atol=rounding(terms(source.embed)))
