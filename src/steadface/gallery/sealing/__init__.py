"""How rows are sealed, and how the log of them is chained."""
