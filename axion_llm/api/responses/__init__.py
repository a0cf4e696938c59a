"""OpenAI's Responses API, on top of chat: bodies in, items to messages, objects and events out."""
