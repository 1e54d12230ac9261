"""`steadface gallery`: who is enrolled, and what keeps a gallery in order."""

from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from steadface.cli.commands import LateCommands
from steadface.cli.console import console, line, say_error, say_warning, stage_bar
from steadface.cli.options import (
    ContractOption,
    GalleryOption,
    JsonOption,
    KeyOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    print_json,
)
from steadface.errors import Unsupported
from steadface.gallery.gallery import Gallery
from steadface.gallery.index.address import index_at
from steadface.gallery.index.comparison import COMPARING, Compared
from steadface.gallery.maintenance import Template
from steadface.gallery.person import Person
from steadface.gallery.place import storage_at
from steadface.gallery.sealing.keys import given_key, read_key, read_or_write_key
from steadface.gallery.storage import described


class GalleryCommands(LateCommands):
    late = {  # noqa: RUF012
        "re-embed": (
            "re_embed:re_embed_gallery",
            "Bring a **gallery** over to another model: everybody's templates are made anew from photographs, or "
            "nobody's.",
        )
    }


gallery_app = typer.Typer(
    cls=GalleryCommands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Look at a **gallery**, remove people from it, check its log, change its key, copy it.",
)

PersonArgument = Annotated[str, typer.Argument(help="A person's name.")]


@gallery_app.command("create")
def create_gallery(
    gallery: GalleryOption,
    model: ModelOption,
    key: Annotated[
        Path | None, typer.Option("--key", help="File for the gallery's key, made if it is not there.")
    ] = None,
    mirror: MirrorOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an empty gallery for the templates of a model."""
    from steadface.recognition.recognizer import Recognizer

    known = Recognizer.open(model, output=output, contract=contract, mirror=mirror).contract
    given = given_key() if key is None else read_or_write_key(key)
    identity = known.identity_under(given)
    with Gallery.create(gallery, model=identity, key=given) as made:
        if as_json:
            print_json({"gallery": made.name, "id": made.info().id, "key": made.key.source})
            return
        console.print(f"made the gallery {made.name} for {described(identity)}", soft_wrap=True)
        say_warning(
            f"its key is in {made.key.source}: keep a copy of that elsewhere, since without it the gallery is lost"
        )


@gallery_app.command("info")
def show_info(gallery: GalleryOption, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Say what a gallery holds, of which model, and the hash of its log's last entry."""
    with Gallery.open(gallery, key=key) as opened:
        info, source = opened.info(), opened.key.source
    if as_json:
        print_json(asdict(info))
        return
    table = Table(show_header=False)
    for name, value in (
        ("people", f"{info.people}"),
        ("templates", f"{info.templates}"),
        ("model", described(info.model)),
        ("size", f"{info.size / 2**20:.1f} MiB"),
        ("created", info.created),
        ("id", info.id),
        ("key", f"{info.key}, {source}"),
        ("head of the log", info.head),
    ):
        table.add_row(name, value)
    console.print(table)


@gallery_app.command("list")
def list_people(gallery: GalleryOption, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """List who is enrolled."""
    with Gallery.open(gallery, key=key) as opened:
        people = opened.people()
    if as_json:
        print_json([person.to_json(datetime.now(UTC)) for person in people])
        return
    table = Table("person", "templates", "enrolled", "consent until", "consent")
    for person in people:
        table.add_row(
            person.name,
            str(person.templates),
            f"{person.created:%Y-%m-%d}",
            _until(person),
            person.consent or "",
        )
    console.print(table)


@gallery_app.command("show")
def show_person(
    person: PersonArgument, gallery: GalleryOption, key: KeyOption = None, as_json: JsonOption = False
) -> None:
    """Show what is kept of a person, and their templates. Exit code 4 where nobody of that name is enrolled.

    A template whose cosine to the most similar of the others is low may be somebody else's.
    """
    with Gallery.open(gallery, key=key) as opened:
        found, templates = opened.person(person), opened.templates(person)
    if as_json:
        print_json({**found.to_json(datetime.now(UTC)), "template_list": [_template_told(one) for one in templates]})
        return
    table = Table(show_header=False)
    for name, value in found.to_json(datetime.now(UTC)).items():
        table.add_row(name, "" if value is None else str(value))
    console.print(table)
    listed = Table("template", "added", "cosine to another")
    for one in templates:
        added = "" if one.added is None else f"{one.added:%Y-%m-%d %H:%M}"
        listed.add_row(str(one.number), added, "-" if one.similarity is None else f"{one.similarity:.3f}")
    console.print(listed)


@gallery_app.command("remove")
def remove_person(
    person: PersonArgument,
    gallery: GalleryOption,
    template: Annotated[
        int | None, typer.Option("--template", help="Only this one of their templates; `show` lists them.")
    ] = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove a person; nothing but a random id in the log is left. Exit code 4 where nobody of that name is enrolled.

    Backups and exports made before keep what they hold, and a database what it says it does.
    """
    with Gallery.open(gallery, key=key) as opened:
        if template is None:
            _say_removed([opened.remove(person)], opened.remains, as_json)
            return
        left = opened.remove_template(person, template)
    if as_json:
        told = {"person": left.name, "removed_template": template, "templates": left.templates}
        print_json(told | _remaining(opened.remains))
        return
    console.print(
        line(f"removed template {template} of ", (left.name, "bold"), f", now {left.templates} template(s)"),
        soft_wrap=True,
    )
    if opened.remains:
        say_warning(opened.remains)


@gallery_app.command("rename")
def rename_person(
    person: PersonArgument,
    new: Annotated[str, typer.Argument(help="The name that they get.")],
    gallery: GalleryOption,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a person another name. Exit code 4 where nobody of that name is enrolled."""
    with Gallery.open(gallery, key=key) as opened:
        renamed = opened.rename(person, new)
        confusable = opened.confusable(renamed.name)
    _say_confusable([(renamed.name, other) for other in confusable])
    if as_json:
        print_json({**renamed.to_json(datetime.now(UTC)), "confusable": confusable})
    else:
        console.print(line(f"renamed {person} to ", (renamed.name, "bold")), soft_wrap=True)


@gallery_app.command("merge")
def merge_people(
    person: Annotated[str, typer.Argument(help="Who is enrolled a second time, and goes.")],
    into: Annotated[str, typer.Argument(help="Who gets their templates, and stays.")],
    gallery: GalleryOption,
    model: Annotated[
        str | None, typer.Option("--model", help="The gallery's model, whose thresholds say whether both look alike.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also where they do not look alike.")] = False,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make one person of two names: INTO gets the templates of PERSON. Exit code 4 where one of them is not enrolled.

    INTO keeps consent and notes, or takes over what it has none of; the earlier expiry counts.
    """
    alike = None if model is None else _alike(model)
    with Gallery.open(gallery, key=key) as opened:
        merged = opened.merge(person, into, alike=None if force else alike)
    if alike is None:
        why = "without --model" if model is None else "by a model that is not calibrated"
        say_warning(f"whether both look like one person was not judged {why}; their highest cosine is below")
    if as_json:
        print_json({**merged.person.to_json(datetime.now(UTC)), "merged": merged.name, "similarity": merged.similarity})
        return
    console.print(
        line(
            f"merged {merged.name} into ",
            (merged.person.name, "bold"),
            f", now {merged.person.templates} templates (highest cosine between both {merged.similarity:.3f})",
        ),
        soft_wrap=True,
    )


@gallery_app.command("expire")
def expire_people(gallery: GalleryOption, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Remove everybody whose consent has expired."""
    with Gallery.open(gallery, key=key) as opened:
        removed = opened.expire()
    _say_removed(removed, opened.remains, as_json)


@gallery_app.command("rotate-key")
def rotate_key(
    gallery: GalleryOption,
    key: KeyOption = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", help="File with the new key, made if it is not there.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Seal everything with another key; the old one then opens nothing but older backups."""
    with Gallery.open(gallery, key=key) as opened:
        old = opened.key.source
        new, remains = opened.rotate(None if new_key is None else read_or_write_key(new_key)), opened.remains
    if as_json:
        print_json({"key": new.id, "source": new.source})
        return
    console.print(f"the gallery {opened.name} is sealed with the key in {new.source}", soft_wrap=True)
    say_warning(f"keep a copy of it elsewhere; the old key, in {old}, still opens older backups: destroy it with them")
    if remains:
        say_warning(remains)


@gallery_app.command("verify-log")
def verify_log(
    gallery: GalleryOption,
    key: KeyOption = None,
    head: Annotated[
        str | None, typer.Option(help="A head noted earlier: also shows whether later entries were cut off.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the log and what it says of the rows. Exit code 1 where something was tampered with."""
    with Gallery.open(gallery, key=key) as opened:
        found = opened.verify_log(head=head)
    if as_json:
        print_json({"intact": found.intact, **asdict(found)})
    elif found.intact:
        console.print(f"the log is intact: {found.entries} entries, head {found.head}", soft_wrap=True)
    else:
        for finding in found.findings:
            say_error(finding.what)
    if not found.intact:
        raise typer.Exit(1)


@gallery_app.command("export")
def export_people(
    target: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    gallery: GalleryOption,
    key: KeyOption = None,
    sealed_with: Annotated[
        Path | None, typer.Option(help="Also templates, sealed with the key in this file, made if it is not there.")
    ] = None,
    plain_vectors: Annotated[
        bool, typer.Option("--plain-vectors", help="Also templates, for anybody who has the file.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write who is enrolled as Parquet, without templates unless they are asked for."""
    with Gallery.open(gallery, key=key) as opened:
        sealing = None if sealed_with is None else read_or_write_key(sealed_with)
        rows = opened.export(target, key=sealing, plain=plain_vectors)
    if as_json:
        print_json({"file": str(target), "rows": rows})
    else:
        console.print(f"{rows} rows in {target}", soft_wrap=True)


@gallery_app.command("import")
def import_people(
    source: Annotated[Path, typer.Argument(help="A Parquet file that `export` wrote, with templates.")],
    gallery: GalleryOption,
    key: KeyOption = None,
    sealed_with: Annotated[Path | None, typer.Option(help="File with the key that its templates are sealed with.")] = (
        None
    ),
    as_json: JsonOption = False,
) -> None:
    """Enrol everybody in a file, or nobody where something is wrong with it."""
    with Gallery.open(gallery, key=key) as opened:
        brought = opened.import_(source, key=None if sealed_with is None else read_key(sealed_with))
        confusable = [(one.name, other) for one in brought.enrollees for other in opened.confusable(one.name)]
    _say_confusable(confusable)
    if as_json:
        names = [one.name for one in brought.enrollees]
        print_json({"imported": names, "expired": list(brought.expired)})
        return
    console.print(f"{len(brought.enrollees)} people enrolled from {source}", soft_wrap=True)
    if brought.expired:
        say_warning(f"left out, since their consent has expired: {', '.join(brought.expired)}")


@gallery_app.command("backup")
def backup_gallery(
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    gallery: GalleryOption,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a gallery, also while it is in use. The copy needs the same key, which is not in it."""
    with Gallery.open(gallery, key=key) as opened:
        opened.backup(target)
        source = opened.key.source
    if as_json:
        print_json({"file": str(target), "key": source})
    else:
        console.print(f"copied to {target}; its key is in {source}", soft_wrap=True)


@gallery_app.command("copy")
def copy_gallery(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The gallery: a file, or postgresql://...")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where none is yet: a file, or postgresql://...")],
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a gallery **between files and databases**, all of it or nothing, verified by the head of its log. The copy
    needs the same key, which is not in it.

    What is written into FROM meanwhile is not in the copy: let nobody write where that is to take its place.
    """
    with Gallery.open(source, key=key) as opened, stage_bar() as progress:
        copied = opened.copy(storage := storage_at(target), progress=partial(progress, "copying"))
        name, kept = opened.name, opened.key.source
    if as_json:
        print_json({"from": name, "to": storage.name, "entries": copied.entries, "head": copied.head, "key": kept})
        return
    console.print(f"copied {name} to {storage.name}; its key is in {kept}", soft_wrap=True)
    console.print(f"its log is intact: {copied.entries} entries, head {copied.head}", soft_wrap=True)


@gallery_app.command("check-index")
def check_index(
    gallery: GalleryOption,
    index: Annotated[
        str,
        typer.Option(
            "--index",
            metavar="INDEX",
            help="What is compared: milvus+http://HOST:PORT/COLLECTION, or postgresql://USER@HOST/DATABASE.",
        ),
    ],
    mend: Annotated[bool, typer.Option("--mend", help="Put right what is wrong.")] = False,
    after: Annotated[int, typer.Option(min=0, help="Go on behind the template of this number.")] = 0,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an **index** that is kept elsewhere with the gallery, template by template. Exit code 1 where it is wrong
    and not mended.

    It is first brought up to date, as for a search; whom a search finds is decided by the gallery in any case.
    """
    reached = after
    with Gallery.open(gallery, key=key, **index_at(index)) as opened, stage_bar(left=True) as bar:

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal reached
            reached = done if stage == COMPARING else reached
            bar(stage, done, total)

        try:
            found = opened.check_index(mend=mend, after=after, progress=progress)
        except KeyboardInterrupt:
            say_warning(f"stopped; go on with --after {reached}")
            raise
    if as_json:
        print_json({**asdict(found), "right": found.right, "mended": mend and not found.right})
    else:
        _say_compared(found, mend)
    if not found.right and not mend:
        raise typer.Exit(1)


@gallery_app.command("grant")
def grant_gallery(
    role: Annotated[str, typer.Argument(help="A role of the PostgreSQL server, which is there already.")],
    gallery: GalleryOption,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Search and look only, as on a standby; nothing else.")
    ] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Print what would be done, as SQL, and do nothing.")] = False,
) -> None:
    """Let a **role** of PostgreSQL use a gallery, but for the log, to which it may only add. Needs no key.

    The role that made the gallery owns its tables and may do anything with them: let a service use another one.
    """
    from steadface.gallery.storage.postgres import PostgresStorage, grants

    storage = storage_at(gallery)
    if not isinstance(storage, PostgresStorage):
        raise Unsupported("a gallery in a file has no roles: who may use it is a matter of the file's permissions")
    if sql:
        for statement in grants(storage.address.schema, role, read_only=read_only):
            console.print(f"{statement};", soft_wrap=True)
        return
    storage.grant(role, read_only=read_only)
    may = "look and search" if read_only else "look, search, enrol and remove, and add to the log"
    console.print(line("the role ", (role, "bold"), f" may {may} in {storage.name}"), soft_wrap=True)


@gallery_app.command("migrate")
def migrate_gallery(gallery: GalleryOption) -> None:
    """Bring the tables of a gallery in PostgreSQL forward from an **earlier version**, all or nothing. Needs no key,
    but the role that made the gallery.

    Those who still run the earlier version are refused from then on: upgrade them first.
    """
    from steadface.gallery.storage.postgres import VERSION, PostgresStorage

    storage = storage_at(gallery)
    if not isinstance(storage, PostgresStorage):
        raise Unsupported("a gallery in a file is brought forward by itself, when it is next written into")
    before = storage.migrate()
    done = f"is of layout {VERSION} already" if before == VERSION else f"was brought from layout {before} to {VERSION}"
    console.print(line(f"{storage.name} {done}"), soft_wrap=True)


def _say_compared(found: Compared, mended: bool) -> None:
    if found.right:
        console.print(f"the index holds the {found.templates} templates of the gallery, and nothing else")
    else:
        console.print(
            f"of {found.templates} templates the index lacked {found.missing} and had {found.other} with another "
            f"vector; {found.surplus} of its vectors belonged to nothing"
            + ("; all of that was put right" if mended else ""),
            soft_wrap=True,
        )
        if not mended:
            say_warning("nobody is found who is gone, but who is lacking may be missed: put it right with --mend")
    if found.pending:
        say_warning(
            f"{found.pending} of its vectors are not in the graph or the lists that were asked for yet: until the "
            "server has made them a search may miss more of these people; look again in some minutes"
        )


def _alike(model: str) -> float | None:
    """From which cosine on the model takes two templates for one person's."""
    from steadface.recognition.recognizer import Recognizer  # loads torch, which only some of these commands need

    return Recognizer.open(model).alike


def _say_confusable(names: list[tuple[str, str]]) -> None:
    if not names:
        return
    from steadface.recognition.answers import confusing

    for name, other in names:
        say_warning(confusing(name, other))


def _template_told(template: Template) -> dict[str, Any]:
    added = None if template.added is None else template.added.isoformat()
    return {"template": template.number, "added": added, "similarity": template.similarity}


def _until(person: Person) -> str:
    if person.expires is None:
        return ""
    return f"{person.expires:%Y-%m-%d}" + (" (expired)" if person.expired(datetime.now(UTC)) else "")


def _say_removed(people: list[Person], remains: str, as_json: bool) -> None:
    if as_json:
        removed = [{"person": person.name, "templates": person.templates} for person in people]
        print_json({"removed": removed} | _remaining(remains))
        return
    for person in people:
        console.print(line("removed ", (person.name, "bold"), f" and {person.templates} template(s)"), soft_wrap=True)
    if not people:
        console.print("nobody's consent has expired")
    elif remains:
        say_warning(remains)


def _remaining(remains: str) -> dict[str, str]:
    """What a gallery says of what was deleted, in JSON: nothing where nothing remains."""
    return {"remains": remains} if remains else {}
