"""Who may ask what of the service, and how much: API keys and their scopes, rate limits, hosts and origins."""
