"""`python -m manylens` is `manylens`."""

from manylens.cli import main

if __name__ == "__main__":
    main()
