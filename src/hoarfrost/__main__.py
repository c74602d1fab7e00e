"""`python -m hoarfrost` is the command `hoarfrost`."""

from hoarfrost.cli import main

if __name__ == "__main__":
    main()
