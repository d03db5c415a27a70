"""Weak-to-strong generalisation: votes, student losses, performance gap recovered, and the tasks (arXiv 2410.12621)."""
