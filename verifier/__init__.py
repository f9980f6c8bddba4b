"""The verifier that needs nothing installed: `src/` are its modules, `build.py` makes the page of them."""
