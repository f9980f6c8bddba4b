"""The declarations of training processes: the socket, its server, and what is not in the journal yet."""
