import math

import pytest
import torch
import torch.nn.functional as F

from steadface.heads import ArcFace, Softmax
from steadface.heads.heads import MarginObjective, SelfReference

from ..rounding import rounding


def test_margin_objective_is_the_mean_cross_entropy_of_the_heads_logits(make_head, seeded):
    head, raw, labels = make_head(), torch.randn(5, 8, generator=seeded(1)), torch.tensor([0, 3, 5, 1, 3])
    loss = MarginObjective(head)(raw, labels, None, clean=True).detach()
    logits = head(raw, labels).detach()
    slow = sum(float(torch.logsumexp(row, 0) - row[label]) for row, label in zip(logits, labels, strict=True)) / 5
    assert float(loss) == pytest.approx(slow, rel=1e-5)


def test_chance_losses_in_closed_form(make_head):
    assert MarginObjective(Softmax(50, 8)).chance_loss() == pytest.approx(math.log(50))
    arcface = MarginObjective(ArcFace(50, 8, s=16, m=0.3)).chance_loss()
    assert arcface == pytest.approx(math.log(1 + 49 * math.exp(16 * math.sin(0.3))))
    # A recogniser that tells nobody apart: every embedding at a right angle to every prototype.
    head = make_head()
    with torch.no_grad():
        head.weight[:, 0] = 0
    nobody, labels = torch.eye(8)[:1].repeat(4, 1), torch.arange(4)
    objective = MarginObjective(head)
    loss = objective(nobody, labels, None, clean=True).detach()
    assert float(loss) == pytest.approx(objective.chance_loss(), rel=1e-5)


def test_correct_is_the_nearest_prototype_without_margin(make_head):
    objective = MarginObjective(make_head())
    raw = 3 * objective.prototypes()
    assert objective.correct(raw, torch.arange(6), None).all()
    assert objective.correct(raw, torch.tensor([0, 1, 2, 4, 3, 5]), None).tolist() == [True] * 3 + [False] * 2 + [True]


def test_without_labels_the_loss_is_the_distance_from_the_reference(seeded):
    objective, raw = SelfReference(), torch.randn(5, 8, generator=seeded(2))
    reference = F.normalize(torch.randn(5, 8, generator=seeded(3)))
    loss = objective(raw, torch.zeros(5, dtype=torch.long), reference, clean=True)
    slow = sum(1 - float(z @ r / z.norm()) for z, r in zip(raw, reference, strict=True)) / 5
    assert float(loss) == pytest.approx(slow, rel=1e-5)
    assert float(objective(9 * reference, torch.arange(5), reference, clean=True)) == pytest.approx(0, abs=rounding(8))
    assert objective.chance_loss() == 1.0
    assert objective.prototypes() is None
    assert list(objective.parameters()) == []


def test_without_labels_every_image_is_its_own_class(seeded):
    reference = F.normalize(torch.randn(4, 8, generator=seeded(4)))
    swapped = reference[[1, 0, 2, 3]]
    assert SelfReference().correct(swapped, torch.zeros(4), reference).tolist() == [False, False, True, True]
