"""What was given: tokens, their scopes and their secrets. Pure but for the randomness of a new secret."""
