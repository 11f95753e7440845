"""Everything that is measured beside this service: bare servers as a ceiling, and other engines."""
