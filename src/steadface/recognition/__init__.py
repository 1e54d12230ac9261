"""A trained recogniser at work: from photographs to answers."""
