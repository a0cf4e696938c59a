"""Our kernels seen from Python: graphs of single operations, their self-test, and what a machine has to do without."""
