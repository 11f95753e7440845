"""What the compiler makes of a token's scopes: a lookup. Pure: never reads a database, a file or a clock."""
