"""Attacks of other libraries on our objective, so that they can stand beside ours; in an environment of their own.

`make bench` installs what is imported here. None of it is a dependency of the package.
"""
