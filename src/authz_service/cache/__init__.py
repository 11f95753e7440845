"""What a replica remembers, and how it knows that it still holds: bounded facts, dropped by the change log alone."""
