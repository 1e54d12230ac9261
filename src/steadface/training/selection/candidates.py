"""The weights that a run could end with, on disk, and what the people held out say of each.

`candidates/NAME.safetensors` (or `.onnx`) holds those that no other beats both on clean faces and under attack; the
others can never be chosen. `candidates.json` has all of them, with what each has lost and gained against the reference,
so that another choice costs no look.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from steadface.errors import InvalidInput, NotFound
from steadface.files import read_file, sha256_of, write_atomically
from steadface.records import Count, Interval, Record, Share, Word, parsed
from steadface.training.networks import ENDINGS, Network, file_for, kept_file, load_network, save_network
from steadface.training.recipe.sections import Selection
from steadface.training.selection.rules import (
    Candidate,
    Kind,
    NothingGained,
    choose,
    exhausted,
    percent_of,
    told,
    undominated,
    verdict,
    why_nothing,
)

TABLE_FILE = "candidates.json"
FOLDER = "candidates"
RECOVERED = "recovered"
LARGEST = 32 * 2**20
"""Bytes; a candidate of a run that holds a thousand people out has some 50 KiB."""

_KEYS = {field.name for field in fields(Candidate)}


class _Figure(Record):
    value: Share
    without: Annotated[tuple[Share, ...], Field(min_length=2)]


class _Difference(Record):
    value: Annotated[float, Field(ge=-1, le=1)]
    ci: tuple[float, float]


class _Attack(Record):
    """What a report shows of an attack; the rest is for readers."""

    goal: Word
    norm: Word
    eps: Annotated[float, Field(ge=0)]
    error_rate: Share
    ci: Interval


class _Row(Record):
    """A candidate, or the reference. The name is that of a file as well; `file` is the digest of that file, which
    earlier versions did not take down.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w .,%-]*$", max_length=100)]
    kind: Kind
    step: Count
    share: Share
    clean: _Figure
    attacked: _Figure
    attacks: tuple[_Attack, ...]
    file: Word | None = None
    lost: _Difference | None = None
    gained: _Difference | None = None


class _Made(Record):
    name: Word
    asked: Mapping[str, float | int | str | bool | None]


class _Table(Record):
    reference: _Row | None
    candidates: tuple[_Row, ...]
    model: _Made | None

    @model_validator(mode="after")
    def _of_one_run(self) -> Self:
        if self.candidates and self.reference is None:
            raise ValueError("there are candidates, and no reference that they are compared with")
        rows = self.candidates if self.reference is None else (self.reference, *self.candidates)
        if len({len(figure.without) for row in rows for figure in (row.clean, row.attacked)}) > 1:
            raise ValueError("the figures are not all of the same groups of people")
        if len({row.name for row in self.candidates}) < len(self.candidates):
            raise ValueError("two candidates have one name")
        return self


class Candidates:
    """Those of the run in `folder`, as of `until` steps: what a killed process saw after that is seen again."""

    def __init__(self, folder: Path, options: Selection, *, until: int) -> None:
        self._folder, self._options = folder, options
        table = read_candidates(folder)
        self.reference: Candidate | None = None
        self.entries: list[Candidate] = []
        self._files: dict[str, str | None] = {}
        self._made: Mapping[str, Any] | None = None
        if table is not None:
            self.reference = None if table["reference"] is None else _candidate(table["reference"])
            self.entries = [one for row in table["candidates"] if (one := _candidate(row)).step <= until]
            self._files = {row["name"]: row.get("file") for row in table["candidates"]}
            self._made = table["model"]

    @staticmethod
    def clear(folder: Path) -> None:
        """No candidates: an earlier run here was killed before its first checkpoint, or what it saved was removed."""
        (folder / TABLE_FILE).unlink(missing_ok=True)
        while (kept := kept_file(folder, RECOVERED)) is not None:
            kept.unlink()
        shutil.rmtree(folder / FOLDER, ignore_errors=True)

    def __contains__(self, name: str) -> bool:
        return any(one.name == name for one in self.entries)

    @property
    def last_look(self) -> int:
        """The last step that was looked at during training, -1 before the first look."""
        return max((one.step for one in (*self.entries, *([self.reference] if self.reference else []))), default=-1)

    @property
    def exhausted(self) -> bool:
        """Whether looks have brought nothing better for too long."""
        looks = [one for one in self.entries if one.kind == "look"]
        return self.reference is not None and exhausted(looks, self.reference, self._options.patience)

    @property
    def concluded(self) -> bool:
        """Whether the model has been made of what the options ask for."""
        return self._made is not None and self._made["asked"] == self._asked

    def measure_against(self, reference: Candidate) -> None:
        """Takes down the reference, which is not a candidate itself."""
        self.reference = reference
        self._write()

    def add(self, candidate: Candidate, network: Network) -> None:
        """Takes down a candidate and keeps its weights; one of that name is replaced."""
        (self._folder / FOLDER).mkdir(exist_ok=True)
        file = file_for(self._folder / FOLDER, _stem(candidate.name), network)
        save_network(file, network, {"candidate": candidate.name})
        self._files[candidate.name] = sha256_of(file)
        self.entries = [*(one for one in self.entries if one.name != candidate.name), candidate]
        self._write()

    def forget_end(self) -> None:
        """Leaves what was looked at during training, for a run that goes on beyond the end at which it chose."""
        if self._made is not None or any(one.kind != "look" for one in self.entries):
            self.entries, self._made = [one for one in self.entries if one.kind == "look"], None
            self._write()

    def prune(self) -> None:
        """Removes weights that are never chosen."""
        kept = {self.weights(one.name) for one in undominated(self.entries)}
        for file in (self._folder / FOLDER).glob("*"):
            if file.suffix in ENDINGS and file not in kept:
                file.unlink(missing_ok=True)

    def weights(self, name: str) -> Path | None:
        """Where a candidate's weights lie, if they were kept."""
        return kept_file(self._folder / FOLDER, _stem(name))

    def load(self, name: str, code: str | None) -> Network:
        """A candidate's network, see `load_network`.

        Raises InvalidInput where its file is not the one that was looked at.
        """
        path, seen = self.weights(name), self._files[name]
        assert path is not None, "only those that were kept are chosen"
        if seen is not None and sha256_of(path) != seen:
            raise InvalidInput(
                f"{path} has changed since the people held out were looked at with it: put it back, or choose another "
                "candidate"
            )
        return load_network(path, code)

    def chosen(self) -> Candidate:
        """The one that becomes the model. Raises NotFound for a name that no candidate has, and NothingGained where
        none is good enough."""
        options = self._options
        if options.choose is not None:
            return self.named(options.choose)
        assert self.reference is not None
        best = choose(self._kept, self.reference, options.max_clean_drop)
        if best is None:
            raise NothingGained(
                f"nothing was gained, so {self._folder} has no model: "
                f"{why_nothing(self.entries, self.reference, options.max_clean_drop)}. {self._folder / TABLE_FILE} has "
                "every candidate, and report.html their curve"
            )
        return best

    def named(self, name: str) -> Candidate:
        """The candidate of that name whose weights were kept. Raises NotFound, naming those, for another name."""
        for one in self._kept:
            if one.name == name:
                return one
        names = ", ".join(repr(one.name) for one in self._kept) or "none yet"
        raise NotFound(f"{self._folder} has kept no candidate {name!r}; choose one of {names}")

    @property
    def _kept(self) -> list[Candidate]:
        return [one for one in self.entries if self.weights(one.name) is not None]

    def describe(self, one: Candidate) -> str:
        """What it has lost and gained, in words."""
        assert self.reference is not None
        seen = verdict(one, self.reference)
        return (
            f"clean EER {percent_of(one.clean.value)} %, lost {told(seen.lost)}; under attack "
            f"{percent_of(one.attacked.value)} %, gained {told(seen.gained)}"
        )

    def doubt(self, one: Candidate) -> str:
        """What the people held out do not rule out; empty where they do."""
        assert self.reference is not None
        lost, allowed = verdict(one, self.reference).lost, self._options.max_clean_drop
        if lost.high <= allowed:
            return ""
        return (
            f"the model may have lost more clean accuracy than {percent_of(allowed)} points: the people held out tell "
            f"no more than {told(lost)}; hold out more of them, or choose another candidate"
        )

    def conclude(self, chosen: Candidate) -> None:
        """Takes down that `chosen` has become the model."""
        self._made = {"name": chosen.name, "asked": self._asked}
        self._write()

    @property
    def _asked(self) -> dict[str, Any]:
        return self._options.choice

    def _write(self) -> None:
        table = {
            "reference": None if self.reference is None else self.reference.to_json(),
            "candidates": [self._row(one) for one in self.entries],
            "model": self._made,
        }
        write_atomically(self._folder / TABLE_FILE, json.dumps(table, indent=1).encode())

    def _row(self, one: Candidate) -> dict[str, Any]:
        assert self.reference is not None
        seen, file = verdict(one, self.reference), self._files.get(one.name)
        return {
            **one.to_json(),
            **({} if file is None else {"file": file}),
            "lost": seen.lost.to_json(),
            "gained": seen.gained.to_json(),
        }


def _stem(name: str) -> str:
    return name.replace(" ", "_").replace("%", "percent")


def read_candidates(folder: Path) -> dict[str, Any] | None:
    """The table of the run in `folder`, None where it has none. Raises InvalidInput where it cannot be read."""
    path = folder / TABLE_FILE
    try:
        text = read_file(path, most=LARGEST)
        parsed(_Table, text)
        table = json.loads(text)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, InvalidInput) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"{path} cannot be read ({what}): put it back as it was") from error
    return {key: table[key] for key in ("reference", "candidates", "model")}


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate.from_json({key: value for key, value in row.items() if key in _KEYS})
