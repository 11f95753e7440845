"""The decision: token, world and request in, allow or deny with its reason out. Pure: no I/O, no clock, no log."""
