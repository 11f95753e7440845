"""The decision point: secrets in, decisions out, from facts that are fresh."""
