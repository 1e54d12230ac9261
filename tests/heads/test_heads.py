"""The heads as modules: what they normalise, keep, imprint and refuse."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.errors import SteadfaceError
from steadface.heads import AdaFace, ArcFace, CosFace, Head, Softmax
from steadface.heads.margins import arcface

from ..rounding import rounding

C, D, B = 7, 16, 5
KINDS = [ArcFace, CosFace, AdaFace, Softmax]
LABELS = torch.tensor([0, 6, 3, 3, 1])

every_head = pytest.mark.parametrize("kind", KINDS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def embeddings(dtype: torch.dtype = torch.float32) -> Tensor:
    return 20 * torch.randn(B, D, generator=seeded(1), dtype=dtype) / math.sqrt(D)


@every_head
def test_logits_have_one_column_an_identity_and_a_gradient_for_each_part(kind: Callable[..., Head]) -> None:
    head, z = kind(C, D, generator=seeded()), embeddings().requires_grad_()
    logits = head(z, LABELS)
    F.cross_entropy(logits, LABELS).backward()
    assert logits.shape == (B, C)
    assert z.grad is not None
    assert head.weight.grad is not None
    assert z.grad.isfinite().all()
    assert head.weight.grad.abs().sum() > 0


@every_head
def test_gradients_through_the_whole_head_are_exact(kind: Callable[..., Head]) -> None:
    head, z = kind(C, D, generator=seeded()).double(), embeddings(torch.float64)
    # The cosine is tried, not the quality: AdaFace detaches the norm, so it may differ along the embedding itself.
    head.eval()
    if kind is AdaFace:
        assert torch.autograd.gradcheck(
            lambda w: _with_weight(head, w)(z, LABELS), head.weight.detach().requires_grad_()
        )
    else:
        assert torch.autograd.gradcheck(lambda x: head(x, LABELS), z.requires_grad_())


def _with_weight(head: Head, weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def call(z: Tensor, labels: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"weight": weight}, (z, labels))

    return call


@every_head
def test_prototypes_are_unit_rows_and_cosines_are_theirs(kind: Callable[..., Head]) -> None:
    head, z = kind(C, D, generator=seeded()), embeddings()
    assert not head.prototypes.requires_grad
    torch.testing.assert_close(head.prototypes.norm(dim=1), torch.ones(C), atol=rounding(D), rtol=0)
    expected = torch.nn.functional.cosine_similarity(z[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head.cosines(z), expected, atol=rounding(D), rtol=0)


@pytest.mark.parametrize("kind", [ArcFace, CosFace, AdaFace])
@pytest.mark.parametrize("classes", [2, 50, 4000])
def test_chance_loss_is_met_when_every_cosine_is_zero(kind: Callable[..., Head], classes: int) -> None:
    """AdaFace's is stated for the mean norm, which is what its statistics start from."""
    head = kind(classes, D, generator=seeded()).eval()
    z = 20 * F.one_hot(torch.zeros(B, dtype=torch.long), D).float()
    with torch.no_grad():
        head.weight[:, 0] = 0
    labels = torch.arange(B) % classes
    assert F.cross_entropy(head(z, labels), labels).item() == pytest.approx(head.chance_loss(), rel=1e-5)


def test_chance_loss_in_closed_form() -> None:
    assert ArcFace(302, D, s=64, m=0.5).chance_loss() == pytest.approx(64 * math.sin(0.5) + math.log(301), rel=1e-9)
    assert CosFace(302, D, s=2, m=0.1).chance_loss() == pytest.approx(math.log(1 + 301 * math.exp(0.2)))
    assert Softmax(302, D).chance_loss() == pytest.approx(math.log(302))


@every_head
def test_bf16_autocast_changes_no_logit(kind: Callable[..., Head]) -> None:
    head, z = kind(C, D, generator=seeded()).eval(), embeddings()
    plain = head(z, LABELS)
    with torch.autocast("cpu", torch.bfloat16):
        logits, cosines = head(z, LABELS), head.cosines(z)
        loss = F.cross_entropy(logits, LABELS)
    assert logits.dtype == cosines.dtype == torch.float32
    assert torch.equal(plain, logits)
    assert loss.isfinite()


def test_bf16_embeddings_equal_to_their_prototype_train_without_nan() -> None:
    head = ArcFace(C, D, generator=seeded())
    z = (30 * head.prototypes[LABELS]).bfloat16().requires_grad_()
    F.cross_entropy(head(z, LABELS), LABELS).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()
    assert head.weight.grad is not None
    assert head.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", [ArcFace, CosFace, AdaFace, Softmax])
def test_imprinted_means_are_the_prototypes_and_are_recognised(kind: Callable[..., Head]) -> None:
    head, means = kind(C, D, generator=seeded()), 25 * torch.randn(C, D, generator=seeded(2))
    head.imprint(means)
    torch.testing.assert_close(head.prototypes, F.normalize(means))
    assert torch.equal(head.cosines(means).argmax(dim=1), torch.arange(C))
    assert head.weight.requires_grad


def test_imprinted_softmax_is_neither_flat_nor_saturated_whatever_the_length_of_the_embeddings() -> None:
    means = F.normalize(torch.randn(500, 128, generator=seeded(2)))
    for length in (0.5, 1.0, 40.0):
        head = Softmax(500, 128, bias=True)
        head.imprint(length * means)
        own = head(length * means, torch.arange(500)).diagonal()
        logit = math.sqrt(2) * math.log(499)
        torch.testing.assert_close(own, torch.full((500,), logit), atol=rounding(128, logit), rtol=0)


def test_imprint_refuses_another_shape_and_rows_without_direction() -> None:
    head, before = CosFace(C, D, generator=seeded()), CosFace(C, D, generator=seeded()).weight
    with pytest.raises(SteadfaceError, match=r"\(6, 16\) do not fit a head of shape \(7, 16\)"):
        head.imprint(torch.ones(C - 1, D))
    means = torch.ones(C, D)
    means[4] = 0
    with pytest.raises(SteadfaceError, match="prototype 4 has length 0"):
        head.imprint(means)
    assert torch.equal(head.weight, before)


def test_labels_out_of_range_are_named() -> None:
    head = Softmax(C, D)
    head.check_labels(torch.arange(C))
    with pytest.raises(SteadfaceError, match="labels run from 0 to 7, but the head has 7 identities"):
        head.check_labels(torch.arange(C + 1))
    with pytest.raises(SteadfaceError, match="labels run from -1"):
        head.check_labels(torch.tensor([-1, 2]))


@pytest.mark.parametrize(("s", "m"), [(0.0, 0.5), (-1.0, 0.5), (64.0, -0.1), (64.0, 1.6), (math.nan, 0.5)])
def test_impossible_scale_and_margin_are_refused(s: float, m: float) -> None:
    with pytest.raises(SteadfaceError, match=r"scale s = .* margin m = "):
        ArcFace(C, D, s=s, m=m)


def test_a_head_for_one_identity_is_refused() -> None:
    with pytest.raises(SteadfaceError, match="at least 2 identities"):
        ArcFace(1, D)


@every_head
def test_weights_are_drawn_from_the_generator_alone(kind: Callable[..., Head]) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (kind(C, D, generator=seeded(s)).weight for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_adaface_statistics_move_only_on_request_and_in_training() -> None:
    head, z = AdaFace(C, D, generator=seeded()), embeddings()
    head(z, LABELS, update=False)
    head.eval()(z, LABELS)
    assert (head.norm_mean.item(), head.norm_std.item()) == (20.0, 100.0)
    head.train()(z, LABELS)
    norms = z.norm(dim=1)
    assert head.norm_mean.item() == pytest.approx(0.99 * 20 + 0.01 * norms.mean().item(), rel=1e-6)
    assert head.norm_std.item() == pytest.approx(0.99 * 100 + 0.01 * norms.std().item(), rel=1e-6)


def test_adaface_statistics_survive_a_batch_of_one() -> None:
    head = AdaFace(C, D, generator=seeded())
    head(embeddings()[:1], LABELS[:1])
    assert head.norm_std.item() == 100.0


def test_adaface_asks_more_of_sharp_faces_and_does_not_reward_their_length() -> None:
    """A short embedding gets ArcFace's margin; the quality is detached, so no gradient runs along the embedding."""
    head = AdaFace(C, D, m=0.4, generator=seeded()).eval()
    head.norm_mean.fill_(20.0)
    head.norm_std.fill_(1.0)
    direction = F.normalize(embeddings())
    short = (5 * direction).requires_grad_()
    logits = head(short, LABELS)
    expected = arcface(head.cosines(short), LABELS, s=64.0, m=0.4)
    torch.testing.assert_close(logits, expected, atol=rounding(D, 64), rtol=0)
    F.cross_entropy(logits, LABELS).backward()
    assert short.grad is not None
    along = (short.grad * direction).sum(dim=1)
    torch.testing.assert_close(along, torch.zeros(B), atol=rounding(D, 64), rtol=0)


def test_softmax_sees_raw_embeddings() -> None:
    head, z = Softmax(C, D, generator=seeded()), embeddings()
    torch.testing.assert_close(head(2 * z, LABELS), 2 * head(z, LABELS))
    angular = CosFace(C, D, generator=seeded())
    torch.testing.assert_close(angular(2 * z, LABELS), angular(z, LABELS))
