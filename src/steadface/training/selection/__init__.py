"""Which weights of a run become its model: looks at people held out, candidates, and the rules of choice."""
