"""What there is: nodes, users and how targets are written. Pure: never reads a database, a file or a clock."""
