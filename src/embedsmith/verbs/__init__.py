"""One file a command, composing the rooms above; the command line and the Python API call these, and nothing here
parses arguments."""
