"""The emulator: a whole pipeline on one machine, with an event source mapping that behaves as AWS's does."""
