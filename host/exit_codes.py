"""What the command tells the shell."""

DONE = 0
FAILED = 1  # while running
BAD_REQUEST = 2  # bad arguments, graph or weights
CANCELLED = 130  # by Ctrl-C, as shells count it
