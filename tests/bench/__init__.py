"""What does a request cost through the sidecar, and through what teams would otherwise put there?

A *contender* is a proxy under measurement. A *call* is the request that is made through it, again and again. A
*scenario* is one question, asked of several contenders in turn, round after round. A *figure* is one number of the
answer; its unit ends its name. One command runs it all: ``python -m tests.bench --help``.
"""
