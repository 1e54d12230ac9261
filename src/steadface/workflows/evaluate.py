"""How well a model recognises, clean and under attack: `steadface evaluate`, and the judgement of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

from steadface.arguments import AnyPath, as_path, choice, count
from steadface.attacks import PGD, ball
from steadface.attacks.balls import Norm
from steadface.audit.request import checked_radii
from steadface.data.bins import read_bin
from steadface.data.pairs import PairSet, read_pairs
from steadface.devices import resolve_device
from steadface.errors import InvalidInput, Unsupported
from steadface.evaluation.embedding import Embedded
from steadface.evaluation.evaluate import Evaluation, StageProgress, evaluate
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.robustness import AttackPlan
from steadface.recognizers import OpenedRecognizer, check_exists
from steadface.report.arm import Arm
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.networks import load_network
from steadface.training.runfolder import read_run_recipe
from steadface.workflows.opening import Stated, listed_faces, open_probed
from steadface.workflows.report import run_arm
from steadface.workflows.train import Trained


def pgd_plan(
    *, eps: float | Sequence[float], norm: Norm = "linf", steps: int = 20, restarts: int = 2, examples: int = 3
) -> AttackPlan:
    """White-box PGD on raw cosines with restarts, inside a ball of each radius, a fraction of the pixel range.

    Raises InvalidInput for radii and numbers that are none.

    >>> import steadface as sf
    >>> plan = sf.pgd_plan(eps=(2 / 255, 4 / 255), steps=10)
    >>> [ball.norm for ball in plan.balls], plan.attacks["pgd"].steps
    (['linf', 'linf'], 10)
    """
    balls = [ball(choice("norm", norm, Norm), radius) for radius in checked_radii(eps, norm)]
    attack = PGD(ball=balls[0], steps=count("steps", steps), restarts=count("restarts", restarts))
    return AttackPlan(attacks={"pgd": attack}, balls=balls, examples=count("examples", examples, least=0))


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A finished run and its evaluation."""

    arm: Arm
    evaluation: Evaluation


def judge(run: AnyPath | Trained, pairs: PairSet | None = None, *, progress: StageProgress | None = None) -> Judged:
    """Evaluates the model of a run, clean and under attack, as its recipe's `evaluation` says.

    `run` is its folder, or what `train` gave, whose faces and model are open already. `pairs` are those of the people
    held out from the run's own faces unless others are given.
    """
    folder = run.folder if isinstance(run, Trained) else as_path(run, "the run")
    trained = run if isinstance(run, Trained) else None
    recipe = read_run_recipe(folder) if trained is None else trained.recipe
    embedded: Embedded | None = None
    if pairs is None:
        held_out = (open_recipe_faces(recipe) if trained is None else trained.faces).validation
        if held_out is None:
            raise InvalidInput("the recipe holds nobody out (data.validation 0): pass pairs")
        pairs = pairs_from_labels(held_out, seed=recipe.run.seed)
        embedded = None if trained is None else trained.embedded
    options = recipe.evaluation
    evaluation = evaluate(
        load_network(folder, recipe.model.code) if trained is None or trained.model is None else trained.model.network,
        pairs,
        mirror=options.mirror,
        attack=pgd_plan(eps=options.eps, norm=options.norm, steps=options.steps, restarts=options.restarts),
        fmr=options.fmr,
        max_pairs=options.max_pairs,
        seed=recipe.run.seed,
        device=resolve_device(recipe.run.device),
        progress=progress,
        embedded=embedded,
    )
    return Judged(arm=run_arm(folder, evaluation), evaluation=evaluation)


def evaluate_model(
    model: str,
    *,
    images: Path | None = None,
    pairs: Path | None = None,
    bins: Sequence[Path] = (),
    attack: AttackPlan | None = None,
    mirror: bool = True,
    fmr: float = 1e-2,
    max_pairs: int = 200,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 64,
    progress: StageProgress | None = None,
    **stated: Unpack[Stated],
) -> tuple[OpenedRecognizer, Evaluation]:
    """Any recogniser on aligned `images` with a file of `pairs`, or pairs drawn from the folders, and on `bins`; see
    `evaluate`. What is not `stated` of its pixels, and in no file, is probed on some of the faces.

    Raises InvalidInput where there is nothing to judge by, Unsupported where a model without gradients is attacked.
    """
    if pairs is not None and images is None:
        raise InvalidInput(f"--pairs {pairs} names images: give their folder with --images DIR")
    if images is None and not bins:
        raise InvalidInput("nothing to judge by: give --images DIR (with --pairs FILE) or --bin FILE")
    chosen = resolve_device(device)
    check_exists(model)
    judged = None if images is None else pair_set(images, pairs, seed)
    bin_sets = _bins(bins)
    probing = next(iter(bin_sets.values())) if judged is None else judged
    opened = open_probed(model, probing, seed=seed, progress=progress, **stated)
    if attack is not None and not opened.differentiable:
        raise Unsupported(f"{model} has no gradients for --attack pgd; `steadface audit` attacks it without them")
    return opened, evaluate(
        opened.network,
        judged,
        bins=bin_sets,
        mirror=mirror,
        attack=attack,
        fmr=fmr,
        max_pairs=max_pairs,
        seed=seed,
        device=chosen,
        batch_size=batch_size,
        progress=progress,
    )


def pair_set(images: Path, pairs: Path | None, seed: int) -> PairSet:
    """The pairs that a file lists, or pairs drawn from the folders where there is none."""
    return pairs_from_labels(listed_faces(images), seed=seed) if pairs is None else read_pairs(pairs, images)


def _bins(paths: Sequence[Path]) -> dict[str, PairSet]:
    names = [path.stem for path in paths]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput(f"--bin: two files are called {name}, and figures go by that name; rename one")
    return {name: read_bin(path) for name, path in zip(names, paths, strict=True)}
