"""Views of the running daemon: metrics, HTTP front, status, page, push."""
