"""Where decisions are asked for: every way in asks the same decision point."""
