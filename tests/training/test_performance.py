import pytest
import torch

from steadface.heads.heads import MarginObjective
from steadface.training.performance import BatchAccuracy, HeldOutVerification, SourcePass, negative_loss


def source_pass(loss=1.0, embeddings=None, labels=None):
    embeddings = torch.zeros(1, 8) if embeddings is None else embeddings
    labels = torch.zeros(len(embeddings), dtype=torch.long) if labels is None else labels
    return SourcePass(loss=loss, embeddings=embeddings, labels=labels)


def test_the_literal_measure_is_minus_the_loss():
    assert negative_loss(source_pass(loss=2.5)) == -2.5


def test_batch_accuracy_is_the_share_recognised(make_head):
    objective = MarginObjective(make_head())
    prototypes = objective.prototypes()
    accuracy = BatchAccuracy(objective)
    assert accuracy(source_pass(embeddings=prototypes[:4], labels=torch.arange(4))) == 1.0
    assert accuracy(source_pass(embeddings=prototypes[:4], labels=torch.tensor([0, 1, 3, 2]))) == 0.5
    assert accuracy(source_pass(embeddings=-prototypes[:4], labels=torch.arange(4))) == 0.0


def test_held_out_verification_is_measured_now_and_then_and_kept_in_between():
    rates = iter([0.1, 0.5, 0.9])
    verification = HeldOutVerification(lambda: next(rates), every=3)
    assert [verification(source_pass()) for _ in range(8)] == [0.1] * 3 + [0.5] * 3 + [0.9] * 2


def test_held_out_verification_goes_on_from_its_counters():
    first = HeldOutVerification(lambda: 0.25, every=4)
    first(source_pass())
    resumed = HeldOutVerification(lambda: pytest.fail("measured too early"), every=4)
    resumed.judged, resumed.value = first.judged, first.value
    assert [resumed(source_pass()) for _ in range(3)] == [0.25] * 3
