"""How fast decisions are, beside peers that answer the same questions. Run `make bench`; nothing here is installed."""
