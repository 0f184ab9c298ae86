"""`python -m pixelwise`, as torchrun needs it."""

from pixelwise.cli import main

main()
