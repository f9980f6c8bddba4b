"""Push metrics where they cannot be scraped: a separate process sends the pages that the daemon gives it.

`feed` is the daemon's side of the pipe; everything else runs in the pushing process, so that the daemon never loads a
receiver's libraries, spends memory on them or waits for its network. See docs/adr/0019-pushing.md.
"""
