"""The store without a server: SQLite for what must survive, the process for limits."""
