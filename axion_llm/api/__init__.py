"""OpenAI's wire format: request bodies in, objects and chunks out, and the one mapping of errors to HTTP."""
