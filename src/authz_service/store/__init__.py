"""Rows in PostgreSQL and the change log over them. Every write and every read names its revision."""
