"""Input and output, one dependency per file. Edges decide nothing and do not know each other."""
