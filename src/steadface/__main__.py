"""``python -m steadface`` is the ``steadface`` command."""

from steadface.cli.main import main

if __name__ == "__main__":
    main()
