"""`python -m flopsd` is the same program as `flopsd`."""

from flopsd.cli import main

if __name__ == "__main__":
    main()
