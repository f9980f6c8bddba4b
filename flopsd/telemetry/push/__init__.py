"""Pushes metrics where they cannot be scraped: a separate process sends what the daemon hands it.

`feed` is the daemon's side of the pipe; everything else runs in the pushing process, so that
no library, no memory and no slow network of a receiver is ever in the daemon. See docs/adr/0019-pushing.md.
"""
