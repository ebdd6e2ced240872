"""What every room leans on: errors, files, progress, the machine."""
