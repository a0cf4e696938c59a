"""The engine of one model: schedule, run, postprocess. Knows tokens and logits; knows nothing of HTTP or processes."""
