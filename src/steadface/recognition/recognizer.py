"""The recognition device: photographs in, answers out, at thresholds that mean something.

    verify(a, b)               are these two one person?                    similarity >= t(FMR)
    identify(image)            who of the enrolled is this, if anybody?     the best one's similarity >= t(FMR)
    enroll(person, images)     one template of several images: the normalised mean of their embeddings
    embed(images)              unit embeddings

A recogniser may be used from several threads.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.arguments import as_path, choice, count, flag
from steadface.data.listing import abbreviated
from steadface.devices import resolve_device
from steadface.errors import InvalidInput, quoted, short
from steadface.faces.detection import Detector
from steadface.faces.photograph import Picture
from steadface.gallery.enrollment import NotAlike
from steadface.gallery.gallery import Gallery
from steadface.gallery.person import parse_expiry
from steadface.gallery.requests import Request
from steadface.gallery.sealing.keys import Key, given
from steadface.recognition.answers import (
    Candidate,
    Enrolled,
    Identified,
    Named,
    SeenFace,
    Suspicion,
    Verified,
    alike,
    confusing,
    doubts,
    fpir_of,
    limit,
    limit_of_fpir,
    notes_on,
    resembling,
    ways_up,
)
from steadface.recognition.face_finder import Pictures, Seeing, listed
from steadface.recognizers.contract import Contract
from steadface.recognizers.embedder import Backend, Embedder, Precision, open_embedder, stacked
from steadface.recognizers.guard import Guard, read_guard
from steadface.recognizers.seal import check_signature
from steadface.recognizers.under_contract import opened_under_contract

Vectors = NDArray[np.float32]


class SeveralPeople(InvalidInput):
    """Pictures that are not all of one person; `odd` are the names of those that do not look like most of them."""

    def __init__(self, message: str, odd: Sequence[str]) -> None:
        super().__init__(message)
        self.odd = tuple(odd)


class Recognizer:
    """A model at work under its contract, with a detector, a gallery and a guard where they are needed.

    Made by `Recognizer.open`; the parts can be put together by hand as well.
    """

    def __init__(
        self,
        *,
        contract: Contract,
        embedder: Embedder,
        seeing: Seeing,
        gallery: Gallery | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.contract, self.guard = contract, guard
        self.embedder, self.seeing = embedder, seeing
        self.gallery = gallery

    @classmethod
    def open(
        cls,
        model: str | os.PathLike[str],
        *,
        output: str | None = None,
        contract: str | os.PathLike[str] | None = None,
        detector: str | os.PathLike[str] | Detector | None = None,
        gallery: Gallery | None = None,
        guard: Guard | str | os.PathLike[str] | None = None,
        key: Key | str | os.PathLike[str] | None = None,
        mirror: bool | None = None,
        backend: Backend = "auto",
        compile: bool = False,
        precision: Precision = "fp32",
        device: torch.device | str = "cpu",
    ) -> "Recognizer":
        """Opens a run folder, a file of weights, an ONNX file or `module:function` under its contract.

        `output` names one of several outputs of the model, `contract` the file of its contract where that does not lie
        with it. `detector` is a YuNet or SCRFD file, `guard` a file that `calibrate_guard` wrote, or either opened;
        without a detector one is looked for when a photograph first needs it. Contract and guard must be signed with
        `key`, the key or the file that holds it, where one is given; a gallery that was made for a signed contract asks
        for that itself. `mirror` sums the embeddings of image and
        mirror image; left out, it is as the model was calibrated. Raises SteadfaceError for what cannot be opened, a
        contract made for other weights, a gallery of another model, a device that is not there, and options that do not
        exist.
        """
        choice("backend", backend, Backend)
        choice("precision", precision, Precision)
        flag("compile", compile)
        mirror, key = None if mirror is None else flag("mirror", mirror), given(key)
        device = resolve_device(device)
        opened, known = opened_under_contract(
            as_path(model, "the model"),
            mirror=bool(mirror),
            output=output,
            file=None if contract is None else as_path(contract, "the contract"),
            gradients=backend == "torch",
        )
        if guard is not None and not isinstance(guard, Guard):
            guard = read_guard(guard, model=known.space)
        if key is not None:
            check_signature("contract", known.seal, key, whose=known.name, expected=True)
            _check_guard(guard, key, known.name, expected=True)
        if mirror is not None and mirror != known.mirror:
            known = replace(known, mirror=mirror, thresholds=None)
        return cls(
            contract=known,
            embedder=open_embedder(
                opened, mirror=known.mirror, backend=backend, compile=compile, precision=precision, device=device
            ),
            seeing=Seeing.with_detector(detector, known.convention.size),
            gallery=gallery,
            guard=guard,
        )

    @property
    def gallery(self) -> Gallery | None:
        """Who is enrolled. Setting it raises SteadfaceError where its templates come from another model."""
        return self._gallery

    @gallery.setter
    def gallery(self, gallery: Gallery | None) -> None:
        if gallery is not None:
            if not isinstance(gallery, Gallery):
                raise InvalidInput(f"the gallery is {quoted(gallery)}; open it first, gallery=Gallery.open(path)")
            signed = self.contract.check_gallery(gallery.model, gallery.key, gallery.name)
            _check_guard(self.guard, gallery.key, self.contract.name, expected=signed)
        self._gallery = gallery

    def verify(
        self,
        first: Picture,
        second: Picture,
        *,
        fmr: float | None = None,
        threshold: float | None = None,
        aligned: bool = False,
    ) -> Verified:
        """Compares the largest faces of two pictures at the threshold of `fmr` (1e-3 if nothing is said).

        Raises SteadfaceError where a picture cannot be read or shows no face, and where the model is not calibrated.
        """
        least, at = limit(self.contract, fmr, threshold)  # before any work
        faces = (self.seeing.face(first, aligned=aligned), self.seeing.face(second, aligned=aligned))
        one, other = self.embed_faces(faces)
        return Verified(
            similarity=min(1.0, float(one @ other)),  # rounding may take it beyond
            threshold=least,
            fmr=at,
            faces=faces,
            suspicion=self._suspicion(faces[1], other, one),
            notes=(*notes_on(faces, self.embedder.size), *doubts(self.contract, at)),
        )

    def identify(
        self,
        picture: Picture,
        *,
        fmr: float | None = None,
        fpir: float | None = None,
        threshold: float | None = None,
        top: int = 5,
        aligned: bool = False,
        most_faces: int | None = None,
    ) -> Identified:
        """Searches the gallery for every face of a picture, at the threshold of `fmr` (1e-3 if nothing is said).

        `fpir` asks for the chance that a stranger is taken for anybody instead: with N people who can be found (those
        whose consent has expired cannot), FMR = 1 - (1 - FPIR)^(1/N). Of more than `most_faces` the largest are looked
        at, and a note says so. Raises SteadfaceError where the picture cannot be
        read, the model is not calibrated, or more than one of the three is given or is none.
        """
        gallery, top = self._needed_gallery(), count("top", top)
        enrolled = gallery.findable()
        if fpir is not None and (fmr is not None or threshold is not None):
            raise InvalidInput("give one of fmr, fpir and threshold; they are three ways to say one thing")
        least, at = (
            limit(self.contract, fmr, threshold) if fpir is None else limit_of_fpir(self.contract, fpir, enrolled)
        )
        photograph, faces = self.seeing.faces(picture, aligned=aligned)
        height, width = photograph.pixels.shape[:2]
        there, faces = len(faces), faces[:most_faces]
        return Identified(
            image=photograph.name,
            width=width,
            height=height,
            faces=self._named(gallery, faces, least, top),
            threshold=least,
            fmr=at,
            fpir=fpir_of(at, enrolled),
            enrolled=enrolled,
            notes=(
                *ways_up(faces),
                *((f"{there} faces were seen, and the {len(faces)} largest looked at",) if there > len(faces) else ()),
                *doubts(self.contract, at),
                *(() if enrolled else (f"there is nobody to be found in {gallery.name}",)),
            ),
        )

    def enroll(
        self,
        person: str,
        pictures: Pictures,
        *,
        aligned: bool = False,
        check: bool = True,
        consent: str | None = None,
        expires: date | str | None = None,
        notes: str | None = None,
        request: Request | None = None,
    ) -> Enrolled:
        """Adds a template of one or more pictures of a person, new or enrolled already: all of them, or nothing.

        `expires` is a day, to its end in UTC, or a time with its zone; as a `date`, a `datetime` or in ISO 8601. A
        `request` is done once, see `Gallery.enroll`.

        Raises SteadfaceError where a picture cannot be read, shows no face or several equally large ones, and, unless
        `check` is false, where at the threshold of FMR 1e-3 the pictures are not all of one person, or (`NotAlike`)
        that person is not the one who has the name. A model that is not calibrated has no such threshold: a note says
        so.
        """
        gallery = self._needed_gallery()
        confusable = gallery.confusable(person)  # first of all: the name, and that the gallery can be used
        until = None if expires is None else parse_expiry(expires)
        faces, vectors = self._clear_faces(person, pictures, aligned)
        template, agreement = self.template_of(person, vectors, [face.name for face in faces], check=check)
        known = self._candidates(gallery, template[None], 3)[0]
        others = tuple(one for one in known if self.alike is not None and one.similarity >= self.alike)
        try:
            done = gallery.enroll(
                person,
                template[None],
                consent=consent,
                expires=until,
                notes=notes,
                alike=self.alike if check else None,
                request=request,
            )
        except NotAlike as error:
            raise NotAlike(
                "; ".join([str(error), *(resembling("the person in the pictures", one) for one in others)])
            ) from None
        name = done.person.name
        resembles = tuple(one for one in others if one.person != name)
        return Enrolled(
            person=name,
            id=done.person.id,
            faces=faces,
            agreement=agreement,
            resembles=resembles,
            template=done.templates[0],
            templates=done.person.templates,
            similarity=done.similarity,
            repeated=done.repeated,
            notes=(
                *notes_on(faces, self.embedder.size),
                *self._unsure(name, len(faces), done.similarity),
                *(resembling(name, one) for one in resembles),
                *(confusing(name, other) for other in confusable if done.similarity is None),
                *self.contract.notes,
            ),
        )

    def template(self, person: str, pictures: Pictures, *, aligned: bool = False, check: bool = True) -> Vectors:
        """The unit template (D,) that `enroll` would store; nothing is stored. Raises as it does."""
        faces, vectors = self._clear_faces(person, pictures, aligned)
        return self.template_of(person, vectors, [face.name for face in faces], check=check)[0]

    def template_of(
        self, person: str, vectors: Vectors, names: Sequence[str], *, check: bool = True
    ) -> tuple[Vectors, float]:
        """The normalised mean (D,) of unit vectors (n, D) of pictures that have these `names`, and the lowest cosine of
        any of them to it. Raises `SeveralPeople` as `enroll` does.
        """
        if check and self.alike is not None:
            self._refuse_several(person, names, vectors @ vectors.T, self.alike)
        total = vectors.sum(0)
        template: Vectors = total / np.linalg.norm(total)
        return template, min(1.0, float((vectors @ template).min()))

    def embed(self, pictures: Pictures, *, aligned: bool = False) -> Vectors:
        """Unit embeddings (n, D) of the largest face of each picture. Raises where one cannot be read or shows none."""
        return self.embed_faces([self.seeing.face(picture, aligned=aligned) for picture in listed(pictures)])

    def embed_faces(self, faces: Sequence[SeenFace]) -> Vectors:
        """Unit embeddings (n, D) of faces that were seen already.

        Raises InvalidInput where faces that differ all have one and the same.
        """
        pixels = stacked([face.aligned for face in faces], self.embedder.size)
        found = self.embedder(pixels)
        if len(found) > 1 and (found == found[0]).all() and np.abs(pixels - pixels[0].astype(np.int16)).mean() > 1:
            raise InvalidInput(
                f"{self.contract.name} gives one and the same embedding for different pictures: it does not look at "
                "them, or its weights are damaged; use another model"
            )
        return found

    def _clear_faces(self, person: str, pictures: Pictures, aligned: bool) -> tuple[tuple[SeenFace, ...], Vectors]:
        """The faces of somebody of whom it is clear that the pictures are theirs, and their embeddings."""
        several = listed(pictures, f" of {short(person)}")
        faces = tuple(self.seeing.face(picture, aligned=aligned, clear=True) for picture in several)
        return faces, self.embed_faces(faces)

    def _named(self, gallery: Gallery, faces: Sequence[SeenFace], least: float, top: int) -> tuple[Named, ...]:
        if not faces:
            return ()
        vectors = self.embed_faces(faces)
        found = self._candidates(gallery, vectors, top)
        return tuple(
            Named(seen=face, candidates=candidates, threshold=least, suspicion=self._suspicion(face, vector, None))
            for face, vector, candidates in zip(faces, vectors, found, strict=True)
        )

    def _candidates(self, gallery: Gallery, vectors: Vectors, top: int) -> list[tuple[Candidate, ...]]:
        return [
            tuple(Candidate(person=one.person.name, similarity=min(1.0, one.similarity)) for one in found)
            for found in gallery.search(vectors, top)
        ]

    def _refuse_several(self, person: str, names: Sequence[str], cosines: Vectors, limit: float) -> None:
        """Raises SteadfaceError where pictures with these `cosines` (n, n) are not all joined by those of `limit` or
        more: of one person any two need not be alike, if others are between them.
        """
        from scipy.sparse.csgraph import connected_components  # slow to load, and needed for nothing else

        count, groups = connected_components(cosines >= limit, directed=False)
        if count == 1:
            return
        main = groups == np.bincount(groups).argmax()
        closest = cosines[:, main].max(1)
        others = np.flatnonzero(~main).tolist()
        odd = [f"{names[place]} ({closest[place]:.2f})" for place in others]
        raise SeveralPeople(
            f"{person} was not enrolled: {abbreviated(odd, len(odd))} does not look like the other pictures (cosine "
            f"below {limit:.2f}); leave it out, or say that no check is wanted",
            [names[place] for place in others],
        )

    @property
    def alike(self) -> float | None:
        """From which cosine on what is enrolled under one name is taken for one person's; None if not calibrated."""
        return alike(self.contract)

    def _unsure(self, name: str, pictures: int, similarity: float | None) -> Iterator[str]:
        """What nobody made sure of when somebody was enrolled whose new template has `similarity` with the old ones."""
        if self.alike is None and pictures > 1:
            yield f"{self.contract.name} is not calibrated, so nothing says whether the pictures are all of one person"
        if self.alike is None and similarity is not None:
            yield (
                f"{self.contract.name} is not calibrated, so nothing says whether this is {name} as enrolled (cosine "
                f"{similarity:.3f} to the most similar template)"
            )
        if self.alike is not None and similarity is not None and similarity < self.alike:
            yield (
                f"added to {name} unchecked: it looks different from the templates that were there (cosine "
                f"{similarity:.3f}; one person has {self.alike:.3f} or more)"
            )

    def _suspicion(self, face: SeenFace, vector: Vectors, reference: Vectors | None) -> Suspicion | None:
        if self.guard is None:
            return None
        probe = stacked([face.aligned], self.embedder.size)
        compared = None if reference is None else reference[None]
        look = self.guard.look(self.embedder, probe, compared, plain=vector[None])
        limits = self.guard.limits
        assert limits is not None  # or it would not have looked
        return Suspicion(
            score=float(look.score[0]),
            threshold=limits.alone if reference is None else limits.compared,
            suspicious=bool(look.flagged[0]),
        )

    def _needed_gallery(self) -> Gallery:
        if self.gallery is None:
            raise InvalidInput("this recogniser has no gallery; open it with gallery=Gallery.open(...)")
        return self.gallery


def _check_guard(guard: Guard | None, key: Key, name: str, *, expected: bool) -> None:
    """Raises Conflict as `check_signature` does."""
    if guard is not None:
        check_signature("guard", guard.seal, key, whose=name, expected=expected)
