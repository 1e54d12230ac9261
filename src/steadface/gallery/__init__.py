"""Who is enrolled, kept encrypted in SQLite, and the search among them."""
