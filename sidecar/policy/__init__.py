"""Pure decisions, one question per file. No await, no clock, no I/O, no log; time and entropy are arguments."""
