"""A bound from below: how far a pair of faces is from being decided wrongly, shown by randomized smoothing."""
