"""`python -m manylens` is `manylens`."""

from manylens.cli.main import main

if __name__ == "__main__":
    main()
