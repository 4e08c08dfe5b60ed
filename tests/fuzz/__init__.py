"""Fuzzing of all that reads what strangers send: `.venv/bin/python -m tests.fuzz --seconds 20`."""
