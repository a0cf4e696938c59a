"""axion-llm: several open language models served from one CPU machine, through OpenAI-compatible ports."""

__version__ = "0.1.0"
