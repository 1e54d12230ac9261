"""What SQLite and PostgreSQL are asked in the same words: rows of people and of templates, as `PersonRow` and
`TemplateRow` have them.
"""

PEOPLE = """
SELECT number, id, tag, created, expires, sealed, (SELECT count(*) FROM templates WHERE person = people.number)
FROM people
"""
TEMPLATES = """
SELECT templates.number, templates.person, people.id, templates.sealed
FROM templates LEFT JOIN people ON people.number = templates.person
"""
