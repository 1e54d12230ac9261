"""What an update is made of."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from steadface.attacks import NFGSM, ball
from steadface.data.loading import Batch
from steadface.errors import SteadfaceError
from steadface.heads.heads import MarginObjective, SelfReference
from steadface.training.gate import FixedGate, SlackGate, ThresholdGate
from steadface.training.regularizers import Embeddings, PullRepel
from steadface.training.step import NonFiniteLoss, Weights
from steadface.training.targets import KeptBlend, Mapped, Nearest, OtherFace, PerturbedSource, RandomOther

from ..rounding import rounding, terms

RING = torch.tensor([1, 2, 3, 4, 5, 0])
DESIGNATIONS = {"nearest": Nearest(), "random": RandomOther(), "map": Mapped(RING)}
FAMILIES = ("other_face", "blend", "perturbed", "kept_blend")


def make_targets(family, designate, attack, faces):
    if family == "none":
        return None
    if family == "perturbed":
        return PerturbedSource(designate=designate, attack=attack)
    if family == "kept_blend":
        return KeptBlend(designate=designate, faces=faces)
    return OtherFace(designate=designate, share=1.0 if family == "other_face" else 0.7, faces=faces)


def sizes(x_a, x, norm):
    delta = (x_a.double() - x.double()).flatten(1)
    return delta.abs().amax(1) if norm == "linf" else delta.norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", ["nfgsm", "pgd", "generator"])
@pytest.mark.parametrize("designate", DESIGNATIONS)
@pytest.mark.parametrize("family", [*FAMILIES, "none"])
def test_every_combination_trains_a_step(
    family, designate, attack, norm, make_trainer, make_attack, watched, watched_targets, faces_of, batches, weights_of
):
    source_of_x_a, faces = watched(make_attack(attack, norm)), faces_of if designate == "map" else None
    sampler = make_targets(family, DESIGNATIONS[designate], make_attack("pgd", norm), faces)
    sampler = sampler and watched_targets(sampler)
    trainer = make_trainer(
        attack=source_of_x_a,
        targets=sampler,
        goal="both" if sampler else "dodge",
        regularizer=PullRepel(triplet=1.0 if sampler else 0.0, target_pull=1.0),
    )
    before, (batch,) = weights_of(trainer), batches(1)
    record = trainer.step(batch)
    after = weights_of(trainer)
    assert record.updates == 2
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(before["backbone.0.weight"], after["backbone.0.weight"])
    ((_, images, x_a, around),) = source_of_x_a.calls
    assert torch.equal(images, batch.images)
    assert float(sizes(x_a, batch.images, norm).max()) <= around.radius + 1e-5
    assert 0 <= float(x_a.min()) <= float(x_a.max()) <= 1
    assert float(sizes(x_a, batch.images, norm).min()) > 0
    if sampler is None:
        return
    ((_, targets),) = sampler.calls
    assert not (targets.labels == batch.labels).any()
    assert (targets.images is None) == (family == "other_face" and faces is None)
    if targets.images is not None:
        assert 0 <= float(targets.images.min()) <= float(targets.images.max()) <= 1
    assert torch.allclose(targets.repel.norm(dim=1), torch.ones(len(batch.labels)), atol=1e-5)
    if designate == "map":
        assert torch.equal(targets.labels, RING[batch.labels])
    if family == "perturbed":
        assert float(sizes(targets.images, batch.images, norm).max()) <= around.radius + 1e-5


@pytest.mark.parametrize("timing", ["same", "next"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_open_update_descends_the_whole_loss(
    family, timing, make_trainer, make_attack, watched, watched_targets, batches, weights_of, network
):
    """Against the loss written out from the formulas on the very samples that were crafted."""
    x_a_of = watched(make_attack())
    sampler = watched_targets(make_targets(family, RandomOther(), make_attack("pgd"), None))
    frozen = copy.deepcopy(network()).eval().requires_grad_(False)
    trainer = make_trainer(
        attack=x_a_of,
        targets=sampler,
        timing=timing,
        batchnorm="joint",
        weights=Weights(source=0.9, alpha=0.7, regularizer=1.3),
        regularizer=PullRepel(
            margin=0.4, triplet=1.1, pull=0.8, target_pull=0.6, reference_adversarial=0.5, reference_source=0.4
        ),
        reference=lambda images: F.normalize(frozen(images)),
        momentum=0.0,
    )
    (batch,) = batches(1)
    slow, head = copy.deepcopy(trainer.backbone), copy.deepcopy(trainer.objective.head)
    optimizer = torch.optim.SGD([*slow.parameters(), *head.parameters()], lr=0.05)

    def recognition(images):
        raw = slow(images)
        return raw, F.cross_entropy(head(raw, batch.labels), batch.labels)

    def update(loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    record = trainer.step(batch)
    if timing == "same":
        update(recognition(batch.images)[1])
    (((_, _, x_a, _),), ((_, targets),)) = x_a_of.calls, sampler.calls
    raw_s, l_s = recognition(batch.images)
    kept = targets.keeps_identity
    raw_a = slow(torch.cat([x_a, targets.images]) if kept else x_a)
    l_a = F.cross_entropy(head(raw_a[: len(x_a)], batch.labels), batch.labels)
    z_s, z_at, z_ref = F.normalize(raw_s), F.normalize(raw_a), F.normalize(frozen(batch.images))
    z_a, home = z_at[: len(x_a)], z_s.detach()
    near, far = (z_a * home).sum(1), (z_a * targets.repel).sum(1)
    r = 1.1 * (0.4 + far - near).clamp_min(0).mean() + 0.8 * (1 - near).mean()
    r = r + 0.5 * (1 - (z_a * z_ref).sum(1)).mean() + 0.4 * (1 - (z_s * z_ref).sum(1)).mean()
    if kept:
        r = r + 0.6 * (1 - (z_at[len(x_a) :] * home).sum(1)).mean()
    update(0.9 * l_s + 0.7 * l_a + 1.3 * r)

    assert record.adversarial_loss == pytest.approx(float(l_a.detach()), rel=1e-4)
    assert record.regularizer == pytest.approx(float(r.detach()), rel=1e-4)
    found = weights_of(trainer)
    for name, value in slow.state_dict().items():
        assert torch.allclose(found[f"backbone.{name}"], value, rtol=1e-4, atol=1e-5), name
    assert torch.allclose(found["objective.head.weight"], head.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("goal", ["dodge", "impersonate", "both"])
def test_half_of_a_batch_dodges_its_source_and_half_impersonates_its_target(
    goal, make_trainer, make_attack, watched, watched_targets, batches, run_steps
):
    attack, sampler = watched(make_attack()), watched_targets(OtherFace(designate=Nearest()))
    trainer = make_trainer(attack=attack, targets=sampler, goal=goal, timing="next")
    run_steps(trainer, batches(4, size=9))
    chosen = set()
    for (score, _, _, _), (source, targets) in zip(attack.calls, sampler.calls, strict=True):
        dodges = score.signs < 0
        assert int(dodges.sum()) == {"dodge": 9, "impersonate": 0, "both": 4}[goal]
        assert torch.allclose(score.anchors[dodges], source.embeddings[dodges], atol=rounding(8))  # z_s
        assert torch.allclose(score.anchors[~dodges], targets.repel[~dodges], atol=rounding(8))  # q_t
        chosen.add(tuple(dodges.tolist()))
    assert (len(chosen) > 1) == (goal == "both")  # which half is drawn anew every time


def test_impersonating_without_targets_is_refused(make_trainer):
    with pytest.raises(SteadfaceError, match="targets"):
        make_trainer(targets=None, goal="both")


@pytest.mark.parametrize("mode", ["clean", "separate", "frozen", "joint"])
def test_crafting_in_a_step_changes_no_weight_gradient_or_statistic(
    mode, make_trainer, make_attack, batches, weights_of
):
    """The recogniser before and after its samples are made, seen from inside the attack."""
    seen = []

    class Looking:
        def __init__(self, inner, trainer):
            self.inner, self.trainer, self.ball = inner, trainer, inner.ball

        def within(self, ball):
            return Looking(self.inner.within(ball), self.trainer)

        def __call__(self, score, images, *, generator):
            before = weights_of(self.trainer)
            assert not any(part.training for part in self.trainer.backbone.modules())
            found = self.inner(score, images, generator=generator)
            after = weights_of(self.trainer)
            assert all(torch.equal(after[name], value) for name, value in before.items())
            assert all(p.grad is None for p in self.trainer.backbone.parameters())
            seen.append(len(images))
            return found

    trainer = make_trainer(batchnorm=mode)
    trainer.attack = Looking(make_attack("generator"), trainer)
    trainer.step(batches(1)[0])
    assert seen == [8]
    assert all(part.training for part in trainer.backbone.modules())
    assert all(p.requires_grad for p in trainer.backbone.parameters())


def test_adversarial_samples_move_their_cosines_in_training_too(make_trainer, make_attack, watched, batches, run_steps):
    attack = watched(make_attack("pgd"))
    trainer = make_trainer(attack=attack, timing="next", rate=0.0, momentum=0.0)
    run_steps(trainer, batches(6))
    trainer.backbone.eval()
    for score, images, x_a, around in attack.calls[3:]:
        with torch.no_grad():
            moved = score(x_a) - score(around.sample(images, trainer.generator))
        for goal in (score.signs < 0, score.signs > 0):
            assert float(moved[goal].mean()) > 0


class Poisoned(nn.Module):
    """FR that turns bad at the chosen call, on clean or on adversarial samples."""

    labelled = True

    def __init__(self, inner, *, value, clean, call):
        super().__init__()
        self.inner, self.value, self.clean, self.calls, self.bad_call = inner, value, clean, 0, call
        self.prototypes = inner.prototypes

    def forward(self, embeddings, labels, reference, *, clean):
        loss = self.inner(embeddings, labels, reference, clean=clean)
        if (embeddings.requires_grad and labels is not None) and clean == self.clean:
            self.calls += 1
            return loss * self.value if self.calls == self.bad_call else loss
        return loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("clean", "timing", "accumulate", "call"),
    [(True, "same", 1, 2), (True, "next", 1, 2), (False, "next", 1, 2), (True, "next", 2, 4), (False, "next", 2, 4)],
)
def test_a_loss_that_is_not_finite_stops_before_the_update(
    value, clean, timing, accumulate, call, make_trainer, make_head, batches
):
    objective = Poisoned(MarginObjective(make_head()), value=value, clean=clean, call=call)
    gate = FixedGate(is_open=timing == "next")
    trainer = make_trainer(objective=objective, timing=timing, accumulate=accumulate, gate=gate)
    good, bad = batches(2)
    trainer.step(good)
    before = {name: p.detach().clone() for name, p in trainer.backbone.named_parameters()}
    head = objective.inner.head.weight.detach().clone()
    with pytest.raises(NonFiniteLoss, match=r"nan|inf"):
        trainer.step(bad)
    assert all(torch.equal(p, before[name]) for name, p in trainer.backbone.named_parameters())
    assert torch.equal(objective.inner.head.weight, head)
    assert all(p.grad is None for p in trainer.backbone.parameters())
    assert trainer.updates == 1


class Darken:
    """A stand-in for an attack, without chance: halves and whole batches get the same samples."""

    ball = ball("linf", 0.1)

    def within(self, ball):  # noqa: ARG002
        return self

    def __call__(self, score, images, *, generator):  # noqa: ARG002
        return (images - 0.1).clamp(0, 1)


@pytest.mark.parametrize("timing", ["same", "next"])
def test_a_gate_that_is_half_open_halves_what_it_drives(
    timing, make_trainer, make_attack, watched, batches, weights_of
):
    """Half the weights are those of a trainer that has half of them, bitwise; half the radius is the attack's."""
    whole, half = Weights(alpha=0.8, regularizer=1.2), Weights(alpha=0.4, regularizer=0.6)
    (batch,) = batches(1)

    def trained(**options):
        trainer = make_trainer(timing=timing, **options)
        return trainer, trainer.step(batch)

    def driven(drives):
        return SlackGate(-1e9, gain=1e-12, strength=0.5, drives=drives)

    weight, record = trained(gate=driven("weight"), weights=whole)
    expected, _ = trained(gate=FixedGate(is_open=True), weights=half)
    assert record.gate_open
    assert record.strength == pytest.approx(0.5)
    for name, value in weights_of(expected).items():
        assert torch.allclose(value, weights_of(weight)[name], atol=1e-6), name
    attack = watched(make_attack())
    _, record = trained(gate=driven("radius"), attack=attack)
    assert record.eps == pytest.approx(4 / 255)
    assert attack.calls[0][3].radius == pytest.approx(4 / 255)


@pytest.mark.parametrize("gate_open", [False, True])
@pytest.mark.parametrize("timing", ["same", "next"])
def test_accumulating_two_halves_is_one_batch(gate_open, timing, make_trainer, make_head, network, batches, run_steps):
    """Without BatchNorm, in float64; the judged loss is that of the whole effective batch."""
    outcomes = []
    for accumulate in (1, 2):
        trainer = make_trainer(
            network=network(norms=False).double(),
            head=make_head().double(),
            attack=Darken(),
            targets=None,
            goal="dodge",
            timing=timing,
            gate=FixedGate(is_open=gate_open),
            accumulate=accumulate,
            clip_norm=0.5,
        )
        given = [Batch(images=b.images.double(), labels=b.labels) for b in batches(4, size=12)]
        outcomes.append((trainer, run_steps(trainer, given)))
    (whole, records), (halves, same_records) = outcomes
    for one, other in zip(records, same_records, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-10)
        assert one.updates == other.updates
        assert (one.regularizer is not None) == gate_open
        if gate_open:
            assert one.regularizer == pytest.approx(other.regularizer, rel=1e-9)
            assert one.adversarial_loss == pytest.approx(other.adversarial_loss, rel=1e-9)
    for one, other in zip(whole.backbone.parameters(), halves.backbone.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-12)


def test_unequal_parts_count_by_their_images(make_trainer, make_head, network, batches):
    losses = []
    for accumulate in (1, 3):  # 10 images: 4 + 4 + 2
        trainer = make_trainer(
            network=network(norms=False), gate=FixedGate(is_open=False), head=make_head(), accumulate=accumulate
        )
        losses.append(trainer.step(batches(1, size=10)[0]).loss)
    assert losses[0] == pytest.approx(losses[1], abs=rounding(terms(trainer.backbone), 16))  # s of the head


@pytest.mark.parametrize("family", FAMILIES)
def test_a_regulariser_of_the_users_own_receives_the_embeddings(family, make_trainer, make_attack, batches):
    seen = []

    def spread(e: Embeddings) -> torch.Tensor:
        seen.append(e)
        return 0.25 + 0 * e.adversarial.sum()

    sampler = make_targets(family, RandomOther(), make_attack("pgd"), None)
    trainer = make_trainer(regularizer=spread, targets=sampler)
    record = trainer.step(batches(1)[0])
    assert record.regularizer == 0.25
    (e,) = seen
    for part in (e.source, e.adversarial, e.target, e.repel):
        assert torch.allclose(part.norm(dim=1), torch.ones(8), atol=1e-5)
    assert e.source.requires_grad
    assert e.adversarial.requires_grad
    assert not e.repel.requires_grad
    kept = family in ("perturbed", "kept_blend")
    assert e.keeps_identity == kept
    assert e.target.requires_grad == kept  # only a target that is still the source person is trained on
    assert e.reference is None


def test_a_regularisers_gradient_reaches_the_weights(make_trainer, batches, weights_of):
    plain, pulled = (
        make_trainer(regularizer=regularizer, weights=Weights(alpha=0), timing="next", momentum=0.0)
        for regularizer in (None, PullRepel())
    )
    batch = batches(1)[0]
    assert plain.step(batch).regularizer == 0.0
    assert pulled.step(batch).regularizer > 0
    assert not torch.equal(weights_of(plain)["backbone.0.weight"], weights_of(pulled)["backbone.0.weight"])


def test_robust_training_lowers_the_regulariser(make_trainer, batches, run_steps):
    trainer = make_trainer(weights=Weights(source=1, alpha=1, regularizer=2), rate=0.05)
    records = run_steps(trainer, batches(60))
    early, late = (sum(r.regularizer for r in part) / 10 for part in (records[:10], records[-10:]))
    assert late < 0.8 * early


@pytest.mark.parametrize("source", [0.0, 1.0])
def test_the_same_seed_gives_the_same_weights(source, make_trainer, batches, run_steps, weights_of):
    found = []
    for _ in range(2):
        trainer = make_trainer(batchnorm="joint", weights=Weights(source=source), timing="next")
        run_steps(trainer, batches(3))
        found.append(weights_of(trainer))
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_adversarial_training_without_source_term_judges_the_clean_loss(make_trainer, network, make_head, batches):
    """Plain adversarial training: the recorded loss is the clean one all the same, of the deployed model."""
    trainer = make_trainer(
        batchnorm="joint", weights=Weights(source=0), timing="next", attack=NFGSM(ball=ball("linf", 0.1))
    )
    (batch,) = batches(1)
    clean = F.cross_entropy(make_head()(network().eval()(batch.images), batch.labels), batch.labels)
    expected = pytest.approx(float(clean.detach()), abs=rounding(terms(trainer.backbone), 16))  # s of the head
    assert trainer.step(batch).loss == expected


def test_without_labels_every_image_is_its_own_class(make_trainer, network, batches, watched_targets):
    """Whatever folder they came from: the images of one folder may designate each other."""
    frozen = network().eval().requires_grad_(False)
    targets = watched_targets(OtherFace(designate=Nearest(same_person=1.0)))
    trainer = make_trainer(
        objective=SelfReference(),
        batchnorm="frozen",
        targets=targets,
        timing="next",
        reference=lambda images: F.normalize(frozen(images)),
    )
    (batch,) = batches(1)
    trainer.step(Batch(images=batch.images, labels=torch.zeros_like(batch.labels)))
    ((source, found),) = targets.calls
    assert source.labels.tolist() == list(range(len(batch.labels)))
    assert bool((found.labels != source.labels).all())


@pytest.mark.parametrize("clip_norm", [None, 1.0])
def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(clip_norm, make_trainer, batches, weights_of):
    """A finite loss can have an infinite gradient; an update with it would end the run one step later."""

    def rootless(embeddings):
        return (embeddings.adversarial - embeddings.adversarial.detach()).abs().sum().sqrt()

    trainer = make_trainer(regularizer=rootless, clip_norm=clip_norm, timing="next")
    before = {name: value.clone() for name, value in weights_of(trainer).items() if "running" not in name}
    with pytest.raises(NonFiniteLoss, match="gradient"):
        trainer.step(batches(1)[0])
    assert all(torch.equal(value, weights_of(trainer)[name]) for name, value in before.items() if value.ndim > 0)


def test_targets_that_the_regulariser_does_not_use_are_not_embedded(make_trainer, network, batches):
    sizes = []
    counted = network()
    counted.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    blend = KeptBlend(designate=Nearest())
    for weight, largest in ((0.0, 8), (1.0, 16)):
        sizes.clear()
        trainer = make_trainer(network=counted, targets=blend, regularizer=PullRepel(target_pull=weight), timing="next")
        trainer.step(batches(1)[0])
        assert max(sizes) == largest


def test_hardening_without_labels_starts_at_no_loss_and_keeps_enrolled_templates(
    make_trainer, network, batches, run_steps
):
    """The finished model is its own reference: the first loss is 0, so the gate opens at once."""
    finished = network()
    for batch in batches(20):
        finished(batch.images)
    frozen = network().requires_grad_(False)
    frozen.load_state_dict(finished.state_dict())
    frozen.eval()
    trainer = make_trainer(
        network=finished,
        objective=SelfReference(),
        batchnorm="frozen",
        gate=ThresholdGate(-0.2),
        reference=lambda images: F.normalize(frozen(images)),
        rate=0.01,
    )
    records = run_steps(trainer, batches(4))
    assert records[0].loss == pytest.approx(0, abs=rounding(8))
    assert all(record.gate_open for record in records)
    assert 0 < records[-1].loss < 0.2
