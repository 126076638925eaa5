"""What the command line asks AWS: with the permissions of whoever calls it, and never from a function."""
