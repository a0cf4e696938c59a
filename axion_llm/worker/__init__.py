"""One process per loaded model: messages (the contract), process (the child), client (the parent's side)."""
