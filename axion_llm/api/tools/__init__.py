"""Tools: shown to the model in the form of its family, its calls read back as OpenAI's deltas."""
