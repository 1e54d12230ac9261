"""A recogniser that people have becomes one that resists, without being lost: `steadface harden`.

The recipe is `recipes/harden.yaml`, with no label in the loss, or `recipes/harden_labelled.yaml`. The reference is
the recogniser as it came, and what is chosen and judged is chosen and judged on people held out. Where nobody says who
they are, the recogniser does.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import AnyPath, as_path
from steadface.backbones import Backbone
from steadface.clustering import people_alike
from steadface.data.faces import FaceSource, split_people
from steadface.data.folders import FaceFiles, UnlabelledFolder, is_unlabelled
from steadface.data.people_csv import write_people
from steadface.devices import resolve_device
from steadface.errors import Conflict, InvalidInput, SteadfaceError
from steadface.evaluation.calibration import split_for_attack
from steadface.evaluation.compatibility import Compatibility, compatibility
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.thresholds import images_to_measure
from steadface.files import write_atomically
from steadface.ranks import ALONE, Ranks
from steadface.recognizers import OpenedRecognizer, with_known_convention
from steadface.recognizers.callables import parts_of_name
from steadface.recognizers.contract import is_named
from steadface.recognizers.foreign import Foreign
from steadface.recognizers.under_contract import opened_under_contract
from steadface.training.assembly.faces import open_named_faces, open_recipe_faces
from steadface.training.loop import Observe
from steadface.training.networks import (
    Network,
    content_of,
    file_for,
    judged,
    kept_file,
    load_network,
    save_network,
    trained_form,
)
from steadface.training.probe import probing_images
from steadface.training.recipe import Recipe, load_recipe
from steadface.training.recipe.recipe import recipe_path
from steadface.training.runfolder import holds_run, make_run_folder, read_run_recipe
from steadface.workflows.opening import log_notes
from steadface.workflows.train import Trained, run_to_end, start_or_resume, store, worked_in_by

ORIGINAL = "original"
COMPATIBILITY = "compatibility.json"
PEOPLE = "people.csv"
MARGIN = 1.25
"""Times the radius that is to be resisted: the attack in training is weaker than one that has all the time."""
MEASURED = 32
"""Faces on which the activations of other people's networks are measured."""
STUDENT_RATE = 2e-3
"""Of AdamW, for weights that start from nothing."""

COMPILED_FROM = 10.0
"""Minutes of training that win back the one to three that compiling other people's networks takes on a CPU."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How long, against which radius (a fraction of the pixel range), and what clean accuracy may be lost for it.

    `choose` names a candidate of a run that has some, in place of the rule of `training/selection`. `labels`
    lets who is who into the loss, `student` is the architecture of another network that learns the embeddings of the
    given one. With `sigma` it is noise of that deviation that is to be resisted, by a smoothed verifier, see
    `recipes/harden_noise.yaml`; `eps` and `max_clean_drop` then mean nothing.
    """

    minutes: float = 60.0
    eps: float = 4 / 255
    max_clean_drop: float = 0.005
    choose: str | None = None
    labels: bool = False
    student: str | None = None
    output: str | None = None
    sigma: float | None = None


@dataclass(frozen=True, kw_only=True)
class Hardened:
    """A hardening run and, once it has finished, how old templates fare with it and whether they stay valid."""

    outcome: Trained
    compatibility: Compatibility | None = None
    keeps_templates: bool = False


def harden(
    weights: AnyPath,
    images: AnyPath,
    out: AnyPath,
    *,
    extra: AnyPath | None = None,
    wishes: Wishes = Wishes(),
    overrides: Sequence[str] = (),
    observe: Observe | None = None,
    ranks: Ranks = ALONE,
) -> Hardened:
    """Hardens a trained recogniser on aligned `images`, or goes on with that in `out`; see `recipes/harden.yaml`.

    Images without person folders are told apart by the recogniser itself; those of the folder `extra` are trained on
    without labels, and nobody is held out of them. Where old templates stay valid the contract of the new model names
    the space of the old one, so that its galleries go on. Of a finished run another `max_clean_drop` or `choose` makes
    another of its candidates the model, without training. Raises SteadfaceError for weights that cannot be trained on,
    for a folder that holds another run or in which another process works, where too few people are told apart, and for
    labels wished for where there are none (`recipes/harden_labelled.yaml`); NothingGained, which leaves no model, where
    no candidate resists better than the recogniser as it came and still recognises. Of several
    `ranks` that train together all but the first one know no more of the end than that it has come.
    """
    weights, images, out = str(as_path(weights, "weights")), as_path(images, "images"), as_path(out, "out")
    extra = None if extra is None else as_path(extra, "extra")
    with worked_in_by(out, ranks):
        return _hardened(weights, images, out, extra, wishes, overrides, observe, ranks)


def _hardened(
    weights: str,
    images: Path,
    out: Path,
    extra: Path | None,
    wishes: Wishes,
    overrides: Sequence[str],
    observe: Observe | None,
    ranks: Ranks,
) -> Hardened:
    """`harden`, while nobody else works in `out`."""
    prepared = list[_Prepared]()

    def prepare() -> Recipe:
        prepared.append(_prepared(weights, images, out, extra, wishes, overrides))
        return prepared[0].recipe

    recipe = ranks.from_first(prepare)
    named = prepared[0].named if prepared else open_named_faces(recipe.data)
    trained = run_to_end(start_or_resume(recipe, open_recipe_faces(recipe, named), ranks), observe)
    if not trained.finished or trained.faces.validation is None or not prepared:
        return Hardened(outcome=trained)
    given, original, made = prepared[0].given, prepared[0].original, trained.contract
    try:
        found = measure_compatibility(original, trained)
        keeps = keeps_templates(found, wishes)
        if keeps and made is not None:
            made = replace(made, space=given.fingerprint)
    finally:
        if made is not None and (trained.model is not None or made != trained.contract):
            store(trained, made)
    return Hardened(outcome=trained, compatibility=found, keeps_templates=keeps)


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What is known before a step is trained: the recogniser as it came, and as what it is trained; who is who."""

    given: OpenedRecognizer
    original: Network
    named: FaceSource
    recipe: Recipe


def _prepared(
    weights: str, images: Path, out: Path, extra: Path | None, wishes: Wishes, overrides: Sequence[str]
) -> _Prepared:
    given, contract = opened_under_contract(weights, output=wishes.output)
    recipe, begun = harden_recipe(given, images, out, wishes, overrides, extra=extra), holds_run(out)
    if wishes.choose is not None and not begun:
        raise InvalidInput(f"{wishes.choose!r} cannot be chosen: {out} holds no run yet; harden first, then choose")
    name_people(given, recipe)
    named = open_named_faces(recipe.data)
    if not begun and not _told_by_likeness(recipe):  # where it told them apart it has looked already
        _check_judged(named, recipe, f"{len(named)} faces of {images} show {len(named.people)} people")
    if contract.thresholds is None and not begun:  # nobody has looked at its pixels yet
        given = with_known_convention(given, pairs_from_labels(named))
        log_notes(given)
        if given.convention.size != recipe.data.size:  # of a graph that takes any
            recipe = harden_recipe(given, images, out, wishes, overrides, extra=extra)
    original = keep_original(given, out, named, recipe.model.corner)
    return _Prepared(given=given, original=original, named=named, recipe=recipe)


def harden_recipe(
    given: OpenedRecognizer,
    images: Path,
    out: Path,
    wishes: Wishes,
    overrides: Sequence[str] = (),
    *,
    extra: Path | None = None,
) -> Recipe:
    """The recipe for a recogniser, to run in `out`, with `section.key=value` overrides.

    Images without person folders get a `data.people` there, see `name_people`. Raises SteadfaceError for a
    recogniser that is no MobileFaceNet or IResNet of RGB images, and for labels wished for where there are none.
    """
    network = trained_form(given)
    original = file_for(out, ORIGINAL, network)
    if wishes.labels and (extra is not None or wishes.student is not None):
        raise InvalidInput(
            "a margin head needs to know everybody, and weights to make its prototypes from: leave --labels out, or "
            "--extra and --student"
        )
    if wishes.sigma is not None and (wishes.labels or wishes.student is not None):
        raise InvalidInput("--sigma hardens a recogniser as it came, without labels: leave --labels and --student out")
    learnt = [f"model.start={original}"]
    if wishes.student is not None:
        learnt = _of_student(wishes.student, network, original)
    # People with one image only are trained on all the same: the loss needs no second one.
    naming = [f"data.people={out / PEOPLE}", "data.min_images=1"] if is_unlabelled(images) else []
    recipe = load_recipe(
        recipe_path(Path("harden_labelled" if wishes.labels else "harden" if wishes.sigma is None else "harden_noise")),
        [
            f"data.images={images}",
            *naming,
            *([] if extra is None else [f"data.extra={extra}"]),
            f"data.size={list(given.convention.size)}",
            *learnt,
            f"run.out={out}",
            f"run.minutes={wishes.minutes}",
            *_aims(wishes),
            f"run.select.choose={json.dumps(wishes.choose)}",
            *([] if isinstance(network, Backbone) else _of_foreign(network, out, wishes)),
            *([] if (code := code_of(given)) is None else [f"model.code={json.dumps(code)}"]),
            *overrides,
        ],
    )
    if wishes.labels and _told_by_likeness(recipe):
        raise InvalidInput(
            f"--labels needs to know who is who in {images}: one folder per person, or --set data.people=FILE.csv"
        )
    return recipe


def _of_foreign(network: Foreign, out: Path, wishes: Wishes) -> list[str]:
    """What is otherwise for other people's networks, of which nobody knows which layer is the last."""
    if holds_run(out):  # and may be asked for more minutes than it began with
        compiled = [f"run.compile={read_run_recipe(out).run.compile}"]
    else:
        compiled = ["run.compile=auto"] if wishes.minutes < COMPILED_FROM else []
    return [
        "run.select.within=0",
        *compiled,
        *([] if network.has_corners else ["model.corner=null"]),  # and nothing to recover from
    ]


def _aims(wishes: Wishes) -> list[str]:
    """What is trained against, and what may be lost for it."""
    if wishes.sigma is not None:
        return [f"method.attack.eps={wishes.sigma}"]
    return [
        f"method.attack.eps={MARGIN * wishes.eps}",
        f"evaluation.eps=[{wishes.eps / 2}, {wishes.eps}]",
        f"run.select.max_clean_drop={wishes.max_clean_drop}",
    ]


def keep_original(given: OpenedRecognizer, out: Path, faces: FaceSource, corner: float | None) -> Network:
    """The network as it came, copied into `out` unless a run has begun with it there.

    Of other networks it is also noted of what scale their activations are on some of the `faces`, whose corners
    are rounded by `corner`. Raises SteadfaceError as `harden_recipe`, and Conflict where the run has begun with others.
    """
    network, kept = trained_form(given), kept_file(out, ORIGINAL)
    if holds_run(out) and kept is not None:
        original = load_network(kept, code_of(given))
        if content_of(original) != content_of(network):
            raise Conflict(
                f"{out} holds a run that began with other weights than those of {given.name}: give the ones it began "
                f"with ({kept}), or another --out"
            )
        return original
    make_run_folder(out)  # a copy that is there without a run is another's, killed before its first checkpoint
    if kept is not None:
        kept.unlink()
    if not isinstance(network, Backbone):
        network = network.measured(probing_images(faces, MEASURED, network.image_size, seed=0), corner)
    save_network(file_for(out, ORIGINAL, network), network, {})
    return network


def code_of(given: OpenedRecognizer) -> str | None:
    """The `module:function` that was given, if it was one."""
    return parts_of_name(given.path)[0] if given.path is not None and is_named(given.path) else None


def name_people(given: OpenedRecognizer, recipe: Recipe) -> None:
    """Writes into the run folder who is on `data.images` as the recogniser sees them, where `recipe` says so.

    A run that has begun keeps what it began with. Raises SteadfaceError where too few people have two images or more
    to be held out and judged by.
    """
    data, path = recipe.data, recipe.run.out / PEOPLE
    if not _told_by_likeness(recipe) or data.images is None or holds_run(recipe.run.out):
        return
    listed = UnlabelledFolder(data.images)
    embedder = MirrorEmbedder(judged(trained_form(given)), mirror=False).to(resolve_device(recipe.run.device))
    embeddings = embed_faces(embedder, listed, skip_unreadable=True)
    readable = np.flatnonzero(np.isfinite(embeddings).all(1))
    labels = people_alike(embeddings[readable], seed=recipe.run.seed)
    images = np.bincount(labels)
    faces = FaceFiles(
        data.images,
        [listed.names[index] for index in readable],
        sizes=listed.sizes[readable],
        labels=labels,
        people=[f"person_{person:06d}" for person in range(len(images))],
    )
    several = np.count_nonzero(images > 1)
    found = f"{len(faces)} faces of {data.images} look like {len(images)} people, {several} of them on two or more"
    _check_judged(faces, recipe, found)
    write_people(path, ((name, faces.people[label]) for name, label in zip(faces.names, labels, strict=True)))
    logger.info("%s; %s says who is who", found, path)


def _told_by_likeness(recipe: Recipe) -> bool:
    return recipe.data.people == recipe.run.out / PEOPLE


def _check_judged(faces: FaceSource, recipe: Recipe, found: str) -> None:
    """Raises SteadfaceError unless the people that the recipe would hold out suffice for its looks at them."""
    options, seed = recipe.evaluation, recipe.run.seed
    if recipe.data.validation == 0:
        return
    try:
        held_out = split_people(faces, fraction=recipe.data.validation, seed=seed)[1]
        split_for_attack(
            pairs_from_labels(held_out, seed=seed), fmr=options.fmr, max_pairs=options.max_pairs, seed=seed
        )
    except SteadfaceError as error:
        raise InvalidInput(
            f"{found}, too few to hold some out and judge by them: {error}. Bring more images of the same people, or "
            "say who is who: one folder per person, or --set data.people=FILE.csv"
        ) from error


def _of_student(name: str, teacher: Network, original: Path) -> list[str]:
    """A network from nothing, whose BatchNorms learn the statistics of clean faces."""
    return [
        f"model.reference={original}",
        f"model.architecture.name={name}",
        f"model.architecture.embedding_size={teacher.embedding_size}",
        "model.corner=null",
        "method.batchnorm=clean",
        f"optimizer.rate={STUDENT_RATE}",
    ]


def measure_compatibility(original: Network, trained: Trained) -> Compatibility:
    """Old templates against new probes on the people held out, also written into the run's folder.

    Raises InvalidInput where they are too few for `evaluation.fmr`.
    """
    held_out, recipe, embedded = trained.faces.validation, trained.recipe, trained.embedded
    assert held_out is not None
    labels = np.asarray(held_out.labels, dtype=np.int64)
    chosen = images_to_measure(labels, seed=recipe.run.seed)
    device = resolve_device(recipe.run.device)

    def templates(network: Network) -> NDArray[np.float32]:
        embedder = MirrorEmbedder(judged(network), mirror=False).to(device)
        return embed_faces(embedder, held_out, chosen, skip_unreadable=True)

    old = templates(original)
    if embedded is not None and embedded.serves(chosen, mirror=False):
        new = embedded.rows
    else:
        new = templates(load_network(trained.folder, recipe.model.code))
    found = compatibility(old, new, labels[chosen], fmr=recipe.evaluation.fmr)
    write_atomically(trained.folder / COMPATIBILITY, json.dumps(found.to_json(), indent=1).encode())
    return found


def keeps_templates(found: Compatibility, wishes: Wishes) -> bool:
    """Whether old templates serve the new model at the threshold in use: it refuses at most `max_clean_drop` more
    genuine pairs than before, and accepts at most twice the impostors that the threshold stands for.
    """
    return found.mixed.fnmr <= found.old.fnmr + wishes.max_clean_drop and found.mixed.fmr <= 2 * found.fmr
