"""The HTTP server: `server` schedules connections, `exchange` serves one request, `access` admits, `routes` answers."""
