"""A reward over HTTP: the server, its dialects and its client."""
