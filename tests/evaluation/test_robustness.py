from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from steadface.attacks import L2, PGD, Ball, CosineScore, Linf
from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import split_for_attack
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.evaluate import embed_pairs
from steadface.evaluation.findings import Robustness, collapse, masking
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.robustness import AttackPlan, measure_robustness

from ..rounding import rounding
from .faces import SIZE, Damaged, LinearBackbone, noise_faces

PAIRS = pairs_from_labels(noise_faces(40, 4, spread=60), 100, seed=0)
ROUNDING = rounding(3 * SIZE * SIZE)
"""Of cosines of a `LinearBackbone`."""
PGD5 = PGD(ball=Linf(0), steps=5)


@dataclass(frozen=True, kw_only=True)
class Scripted:
    """Answers each radius with its own part of the way from the image to a given end; notes what it was asked."""

    ball: Ball
    end: Tensor | None = None
    log: list[tuple[float, int]] = field(default_factory=list)

    def within(self, ball: Ball) -> "Scripted":
        return replace(self, ball=ball)

    def __call__(self, _: CosineScore, images: Tensor, **__: torch.Generator) -> Tensor:
        self.log.append((self.ball.radius, len(images)))
        return images if self.end is None else images + (self.end - images) * self.ball.radius


def run(plan: AttackPlan, *, mirror: bool = True, seed: int = 0, pairs: int = 12, batch_size: int = 5) -> Robustness:
    embedder = MirrorEmbedder(LinearBackbone(), mirror)
    split = split_for_attack(PAIRS, fmr=1e-2, max_pairs=pairs, seed=0)
    embeddings = embed_pairs(embedder, PAIRS)
    return measure_robustness(embedder, PAIRS, embeddings, split, plan, seed=seed, batch_size=batch_size)


def linf(*radii: float) -> list[Ball]:
    return [Linf(radius) for radius in radii]


@pytest.mark.parametrize("mirror", [True, False])
def test_errors_rise_with_the_radius_to_all_pairs(mirror: bool) -> None:
    found = run(AttackPlan(attacks={"pgd": PGD5}, balls=linf(0.5, 0.01, 0.1)), mirror=mirror)
    for goal in ("dodging", "impersonation"):
        rows = [result for result in found.results if result.goal == goal]
        assert [row.eps for row in rows] == [0.01, 0.1, 0.5]
        errors = [rows[0].clean_errors] + [row.errors for row in rows]
        assert errors == sorted(errors)
        assert rows[0].errors < rows[-1].errors == rows[-1].pairs == 12
        cosines = [rows[0].clean_cosine] + [row.cosine for row in rows]
        assert cosines == sorted(cosines, reverse=goal == "dodging")


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("ball", [Linf(0.1), L2(3.0)])
def test_examples_hold_what_the_judged_embedding_says(mirror: bool, ball: Ball) -> None:
    found = run(AttackPlan(attacks={"pgd": PGD5}, balls=[ball], examples=2), mirror=mirror)
    assert [example.goal for example in found.examples] == ["dodging"] * 2 + ["impersonation"] * 2
    embedder = MirrorEmbedder(LinearBackbone(), mirror).eval()
    for example in found.examples:
        source, reference, adversarial = (
            torch.from_numpy(picture).permute(2, 0, 1)[None]
            for picture in (example.source, example.reference, example.adversarial)
        )
        with torch.no_grad():
            before = (embedder(source) * embedder(reference)).sum().item()
            after = (embedder(adversarial) * embedder(reference)).sum().item()
        assert before == pytest.approx(example.cosine_before, abs=ROUNDING)
        assert after == pytest.approx(example.cosine_after, abs=ROUNDING)
        assert (after < before) == (example.goal == "dodging")
        assert (before >= example.threshold) == (example.goal == "dodging")  # the clean verifier is right
        torch.testing.assert_close(ball.project(adversarial, source), adversarial)


def test_error_counts_are_those_of_attacking_every_pair_on_its_own() -> None:
    plan = AttackPlan(attacks={"pgd": PGD(ball=Linf(0), steps=5, random_start=False)}, balls=linf(0.05))
    assert [(r.errors, r.errors_8bit) for r in run(plan, batch_size=1).results] == [
        (r.errors, r.errors_8bit) for r in run(plan, batch_size=64).results
    ]


def test_a_broken_pair_is_not_attacked_again_and_stays_broken() -> None:
    attack = Scripted(ball=Linf(0), end=torch.zeros(()))  # to black, which is nobody: dodging works
    found = run(AttackPlan(attacks={"scripted": attack}, balls=linf(0.2, 1.0)), batch_size=64)
    dodging, _ = [[r for r in found.results if r.goal == goal] for goal in ("dodging", "impersonation")]
    assert 0 < dodging[0].errors == dodging[0].errors_8bit < 12  # so the second radius has some left, not all
    assert attack.log[:2] == [(0.2, 12 - dodging[0].clean_errors), (1.0, 12 - dodging[0].errors)]
    assert dodging[1].errors == 12


def test_an_attack_that_does_nothing_leaves_the_clean_errors_and_is_doubted() -> None:
    found = run(AttackPlan(attacks={"idle": Scripted(ball=Linf(0))}, balls=linf(0.1)))
    assert all(row.errors == row.clean_errors == row.errors_8bit for row in found.results)
    assert all(row.cosine == pytest.approx(row.clean_cosine, abs=ROUNDING) for row in found.results)
    assert sum("no pair broke" in warning for warning in found.warnings) == 2


def test_what_rounding_undoes_is_told_apart() -> None:
    """The blind spot of a linear embedding: a change of half a grey level that vanishes when saved."""

    @dataclass(frozen=True, kw_only=True)
    class SubLevel:
        ball: Ball

        def within(self, ball: Ball) -> "SubLevel":
            return replace(self, ball=ball)

        def __call__(self, score: CosineScore, images: Tensor, *, generator: torch.Generator) -> Tensor:
            return PGD(ball=Linf(0.4 / 255), steps=20)(score, images, generator=generator)

    close = pairs_from_labels(noise_faces(40, 4, spread=60), 100, seed=0)
    embedder = MirrorEmbedder(Magnified(), False)
    split = split_for_attack(close, fmr=1e-2, max_pairs=12, seed=0)
    plan = AttackPlan(attacks={"sub": SubLevel(ball=Linf(0))}, balls=linf(0.4 / 255))
    found = measure_robustness(embedder, close, embed_pairs(embedder, close), split, plan)
    for row in found.results:
        assert row.errors == row.pairs
        assert row.errors_8bit == row.clean_errors


class Magnified(LinearBackbone):
    """Looks at the fraction of a grey level too, which saved images do not have."""

    def embed(self, pixels: Tensor) -> Tensor:
        levels = pixels * 127.5 + 127.5
        fraction = (levels - levels.round().detach()) / 127.5
        return super().embed(pixels + 400 * fraction)


def test_the_embedder_is_left_as_it_was() -> None:
    backbone = LinearBackbone().train()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    embedder = MirrorEmbedder(backbone)
    split = split_for_attack(PAIRS, fmr=1e-2, max_pairs=3, seed=0)
    plan = AttackPlan(attacks={"pgd": PGD5}, balls=linf(0.1))
    measure_robustness(embedder, PAIRS, embed_pairs(embedder, PAIRS), split, plan)
    assert backbone.training
    assert backbone.norm.training
    assert backbone.weight.requires_grad
    assert backbone.weight.grad is None
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())


def test_progress_ends_at_its_total_and_the_seed_decides() -> None:
    heard: list[tuple[int, int]] = []
    plan = AttackPlan(attacks={"pgd": PGD5}, balls=[Linf(0.02), L2(0.5), Linf(0.04)])
    embedder = MirrorEmbedder(LinearBackbone())
    split = split_for_attack(PAIRS, fmr=1e-2, max_pairs=4, seed=0)
    embeddings = embed_pairs(embedder, PAIRS)
    rows = [
        measure_robustness(
            embedder, PAIRS, embeddings, split, plan, seed=seed, progress=lambda *step: heard.append(step)
        ).results
        for seed in (1, 1, 2**64 - 1)
    ]
    assert rows[0] == rows[1] != rows[2]
    assert heard[:4] == [(4, 16), (8, 16), (12, 16), (16, 16)]  # two norms, two goals
    assert {(row.norm, row.eps) for row in rows[0]} == {("linf", 0.02), ("linf", 0.04), ("l2", 0.5)}


def test_pairs_with_unreadable_images_are_left_out() -> None:
    split = split_for_attack(PAIRS, fmr=1e-2, max_pairs=5, seed=0)
    gone = frozenset({int(PAIRS.first[split.genuine[0]])})
    damaged = replace(PAIRS, faces=Damaged(PAIRS.faces, gone))
    embedder = MirrorEmbedder(LinearBackbone())
    plan = AttackPlan(attacks={"pgd": PGD5}, balls=linf(0.1))
    found = measure_robustness(embedder, damaged, embed_pairs(embedder, damaged), split, plan)
    assert found.results[0].pairs < 5
    nothing = np.full((len(PAIRS.faces), 32), np.nan, dtype=np.float32)
    nothing[split.images] = embed_pairs(embedder, PAIRS)[split.images]
    with pytest.raises(SteadfaceError, match="none of the pairs drawn for dodging"):
        measure_robustness(embedder, PAIRS, nothing, split, plan)


def gains(*rows: Sequence[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_larger_ball_that_gains_less_is_doubted() -> None:
    attacks = [PGD5.within(Linf(radius)) for radius in (0.1, 0.2)]
    assert not masking("pgd", "dodging", attacks, gains([0.1, 0.3], [0.2, np.nan]))
    assert not masking("pgd", "dodging", attacks, gains([0.1, 0.3], [np.nan, np.nan]))
    (warning,) = masking("pgd", "dodging", attacks, gains([0.1, 0.3], [0.05, np.nan]))
    assert "linf 0.2" in warning
    assert "0.050 less far than at 0.1" in warning


def test_collapse_is_said_out_loud() -> None:
    assert not collapse("pairs", 0.1)
    assert "collapsed" in collapse("pairs", 0.9)[0]


def test_an_empty_plan_is_refused() -> None:
    with pytest.raises(SteadfaceError, match="at least one attack and one ball"):
        AttackPlan(attacks={"pgd": PGD5}, balls=[])
