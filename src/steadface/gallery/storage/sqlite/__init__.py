"""A gallery in one file: SQLite, the only part of Steadface that knows of it."""
