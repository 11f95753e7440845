"""What an API has: permissions, operations, roles. Pure: takes text, never reads a file, a database or a clock."""
