"""Speeds of this package beside what people would pick instead, as ratios inside one run.

Run `python -m tests.bench --quick`. Every contender of a table works on the same simulated files, yields the same
outcome (compared before anything is timed) and is timed in turn with the others, round by round.
"""
