"""The write paths: who may do what, decided by the same engine in the same transaction, and what it changes."""
