"""What SQLite and PostgreSQL are asked in the same words: rows of people and of templates, as `PersonRow` and
`TemplateRow` have them.
"""

from steadface.arguments import Shard

PEOPLE = """
SELECT number, id, tag, created, expires, sealed, (SELECT count(*) FROM templates WHERE person = people.number)
FROM people
"""
TEMPLATES = """
SELECT templates.number, templates.person, people.id, templates.sealed
FROM templates LEFT JOIN people ON people.number = templates.person
"""


def of_shard(shard: Shard | None, *, asked: str, modulo: str = "%") -> tuple[str, int | None]:
    """The condition that templates are of its people, with `asked` for the value behind it; None: nothing is asked."""
    if shard is None:
        return "", None
    return f"templates.person {modulo} {shard.of} = {asked}", shard.number % shard.of
