"""The HTTP server: `server` holds connections, `request` parses, `routes` answers, `access` authenticates."""
