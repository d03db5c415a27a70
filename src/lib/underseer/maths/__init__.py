"""Pure functions of arrays and tensors: votes, losses, selection, MODPO, statistics, metrics. No input or output."""
