"""`python -m embedsmith`, for launchers such as torchrun."""

from embedsmith.cli import main

main()
