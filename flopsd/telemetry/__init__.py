"""Views of the running daemon: metrics, HTTP server, status, page, push."""
